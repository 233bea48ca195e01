use super::{Folder, Header, Options, VERSION};
use checksum::crc32c;

fn header() -> Header {
    Header { uuid: *b"0123456789abcdef", segment_bytes: 4 << 20, log_bytes: 128 << 20 }
}

#[test]
fn the_header_has_its_documented_bytes() {
    let block = header().encode();
    let hex: String = block[..48].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "4846524c4f47303101000000366e5cdf30313233343536373839616263646566000040000000000000000008 00000000"
            .replace(' ', "")
    );
    assert!(block[48..].iter().all(|byte| *byte == 0));
    assert_eq!(Header::decode(&block), Some(Ok(header())));
}

#[test]
fn damaged_reserved_and_newer_headers_are_told_apart() {
    let block = header().encode();
    for at in [0, 8, 12, 16, 36, 48, 4095] {
        let mut damaged = block;
        damaged[at] ^= 1;
        assert_eq!(Header::decode(&damaged), None, "byte {at}");
    }
    let sealed = |change: &dyn Fn(&mut [u8])| {
        let mut changed = block;
        change(&mut changed);
        changed[12..16].fill(0);
        let crc = crc32c(&changed);
        changed[12..16].copy_from_slice(&crc.to_le_bytes());
        Header::decode(&changed)
    };
    assert_eq!(sealed(&|block| block[60] = 1), None);
    assert_eq!(sealed(&|block| block[8] = 9), Some(Err(9)));
    assert_eq!(sealed(&|_| ()), Some(Ok(header())));
    assert_eq!(VERSION, 1);
}

#[test]
fn a_damaged_copy_of_the_header_is_written_anew() {
    use std::os::unix::fs::FileExt;
    let data = tempfile::tempdir().expect("a folder");
    let options =
        Options { log_bytes: 1 << 20, segment_bytes: 1 << 14, reserve_bytes: 4096, ..Options::default() };
    Folder::create(data.path(), &options).expect("created");
    let folder = Folder::of(data.path());
    let right = std::fs::read(folder.log()).expect("read");
    for at in [20, right.len() - 4096 + 20] {
        let file = std::fs::File::options().write(true).open(folder.log()).expect("opened");
        file.write_all_at(&[right[at] ^ 4], at as u64).expect("damaged");
        let (disk, _) = folder.open_log(options.backend).expect("one copy suffices");
        folder.mend_log(&disk).expect("mended");
        drop(disk);
        assert!(std::fs::read(folder.log()).expect("read") == right, "byte {at}");
    }
}
