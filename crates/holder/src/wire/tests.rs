use super::{BadMessage, HEADER, MESSAGE_MAX, Message, Role, TEXT_MAX};
use crate::kept::{KeptMount, Name};
use mounts::{Agreed, Place, Way};
use proptest::prelude::{Strategy, any, proptest};

fn mount() -> KeptMount {
    KeptMount {
        number: 3,
        volume: "vö".into(),
        place: Place { dir: "/mnt/a b".into(), way: Way::Fusermount, dev: (1, 2), id: 77 },
        agreed: Agreed {
            minor: 45,
            max_readahead: 131_072,
            offered: !0,
            flags: 0x10_0420,
            max_write: 1 << 20,
        },
    }
}

fn all() -> Vec<Message> {
    vec![
        Message::Hello { role: Role::Engine },
        Message::Hello { role: Role::Keeper },
        Message::Welcome { start: 7 },
        Message::Refused { why: "no".into() },
        Message::Take,
        Message::Mount(mount()),
        Message::Put { mount: 3, name: Name::new("clone-1").expect("a name") },
        Message::End { mounts: 1, items: 2 },
        Message::Drop { mount: 3 },
        Message::Ready,
        Message::Bye { failed: None },
        Message::Bye { failed: Some("disk".into()) },
        Message::Done,
        Message::Succeed,
        Message::Replace { program: "/bin/b".into() },
    ]
}

#[test]
fn every_message_comes_back() {
    for message in all() {
        let bytes = message.encode();
        assert!(bytes.len() <= MESSAGE_MAX);
        assert_eq!(Message::decode(&bytes, message.descriptors()), Ok(message));
    }
}

/// The bytes that docs/FORMATS draws.
#[test]
fn a_put_has_these_bytes() {
    let put = Message::Put { mount: 3, name: Name::new("arena").expect("a name") };
    let drawn = b"HFKP\x01\0\x06\0\x0b\0\0\0\x01\0\0\0\x03\0\0\0\x05\0arena";
    assert_eq!(put.encode(), drawn);
    let drawn = [
        b"HFKP\x01\0\x05\0\x40\0\0\0\0\0\0\0".as_slice(),
        b"\x03\0\0\0\x02\x01\0\0\0\x02\0\0\0\x4d\0\0\0\0\0\0\0",
        b"\x2d\0\0\0\0\0\x02\0\xff\xff\xff\xff\xff\xff\xff\xff\x20\x04\x10\0\0\0\0\0\0\0\x10\0",
        "\x03\0vö\x08\0/mnt/a b".as_bytes(),
    ]
    .concat();
    assert_eq!(Message::Mount(mount()).encode(), drawn);
}

#[test]
fn long_reasons_are_cut_at_a_letter() {
    let long = Message::Refused { why: "ö".repeat(TEXT_MAX) }.encode();
    let Ok(Message::Refused { why }) = Message::decode(&long, 0) else { panic!("a refusal") };
    assert!(why.len() <= TEXT_MAX && why.chars().all(|c| c == 'ö'));
}

#[test]
fn what_is_cut_or_longer_or_strange_is_refused() {
    for message in all() {
        let bytes = message.encode();
        for length in 0..bytes.len() {
            assert!(Message::decode(&bytes[..length], message.descriptors()).is_err());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Message::decode(&longer, message.descriptors()), Err(BadMessage::Length));
        // Longer by the header too.
        let body = (longer.len() - HEADER) as u32;
        longer[8..12].copy_from_slice(&body.to_le_bytes());
        assert!(Message::decode(&longer, message.descriptors()).is_err());
        let other = 1 - message.descriptors();
        let refused = Message::decode(&bytes, other);
        assert_eq!(refused, Err(BadMessage::Descriptors { got: other, wanted: message.descriptors() }));
    }
    let mut newer = Message::Take.encode();
    newer[4] = 2;
    assert_eq!(Message::decode(&newer, 0), Err(BadMessage::Version(2)));
    let mut unknown = Message::Take.encode();
    unknown[6] = 99;
    assert_eq!(Message::decode(&unknown, 0), Err(BadMessage::Kind(99)));
}

proptest! {
    #[test]
    fn noise_is_read_or_refused(
        which in 0..15_usize,
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        noise in proptest::collection::vec(any::<u8>(), 0..64).prop_map(|v| v),
    ) {
        let _ = Message::decode(&noise, 0);
        let mut bytes = all()[which].encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Message::decode(&bytes, 0);
        let _ = Message::decode(&bytes, 1);
    }
}
