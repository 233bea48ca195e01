//! What is kept: mounts, and descriptors by name.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mounts::{Agreed, Place};

/// Descriptors that one holder keeps at most; a mount has a device, a few clones and an arena.
pub(crate) const ITEMS_MAX: usize = 4096;

/// Mounts that one holder keeps at most.
pub(crate) const MOUNTS_MAX: usize = 512;

/// What a descriptor is, to whoever put it there: 1 to 64 of `a` to `z`, `0` to `9` and `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name(String);

/// Not a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a descriptor's name has 1 to 64 of a to z, 0 to 9 and -")]
pub struct NameError;

impl Name {
    /// The /dev/fuse that the holder mounted with: each mount has it.
    pub fn device() -> Name {
        Name("device".to_string())
    }

    /// The engine's process, as pidfd_open(2) gives it: readable when its last thread is gone. It belongs to no mount,
    /// and only the holder puts it.
    pub fn engine() -> Name {
        Name("engine".to_string())
    }

    /// Checks a name.
    pub fn new(name: &str) -> Result<Name, NameError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
            Ok(Name(name.to_string()))
        } else {
            Err(NameError)
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A mount whose device is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptMount {
    /// Its number with the holder, from 1 on; 0 stands for what belongs to no mount.
    pub number: u32,
    /// The volume that is to be served there.
    pub volume: String,
    /// Where it is.
    pub place: Place,
    /// What its kernel was answered.
    pub agreed: Agreed,
}

/// A descriptor that is kept. A clone is the same descriptor.
#[derive(Clone, Debug)]
pub struct Item {
    /// The number of its mount, or 0.
    pub mount: u32,
    /// What it is.
    pub name: Name,
    /// It.
    pub descriptor: Arc<OwnedFd>,
}

/// All that a holder keeps, fetched.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// The mounts, by number.
    pub mounts: Vec<KeptMount>,
    /// The descriptors, by mount and name.
    pub items: Vec<Item>,
}

impl Taken {
    /// A descriptor by its name.
    pub fn find(&self, mount: u32, name: &Name) -> Option<BorrowedFd<'_>> {
        let item = self.items.iter().find(|item| item.mount == mount && item.name == *name)?;
        Some(item.descriptor.as_fd())
    }

    /// Does what the holder did.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put(new) => {
                self.items.retain(|old| (old.mount, &old.name) != (new.mount, &new.name));
                self.items.push(new);
            }
            Change::Drop(number) => {
                self.mounts.retain(|mount| mount.number != number);
                self.items.retain(|item| item.mount != number);
            }
        }
    }
}

/// Something that a holder keeps or lets go from now on.
#[derive(Clone, Debug)]
pub enum Change {
    /// A descriptor, in the place of one of the same name if there is one.
    Put(Item),
    /// A mount by its number, with all that belongs to it.
    Drop(u32),
}

/// Why something is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("there is no mount {0}")]
    NoMount(u32),
    #[error("a mount's device is not exchanged")]
    DeviceStays,
    #[error("there is a mount {0} already")]
    Taken(u32),
    #[error("more is not kept")]
    Full,
}

/// The holder's own.
#[derive(Default)]
pub(crate) struct Kept {
    mounts: BTreeMap<u32, KeptMount>,
    items: BTreeMap<(u32, Name), Arc<OwnedFd>>,
}

impl Kept {
    /// The same once more changes nothing.
    pub(crate) fn add_mount(&mut self, mount: KeptMount) -> Result<(), KeepError> {
        if self.mounts.get(&mount.number) == Some(&mount) {
            return Ok(());
        }
        if self.mounts.len() == MOUNTS_MAX {
            return Err(KeepError::Full);
        }
        if mount.number == 0 || self.mounts.contains_key(&mount.number) {
            return Err(KeepError::Taken(mount.number));
        }
        self.mounts.insert(mount.number, mount);
        Ok(())
    }

    /// One of the same name is let go, except a device.
    pub(crate) fn put(&mut self, item: Item) -> Result<(), KeepError> {
        if item.mount != 0 && !self.mounts.contains_key(&item.mount) {
            return Err(KeepError::NoMount(item.mount));
        }
        let key = (item.mount, item.name);
        let there = self.items.contains_key(&key);
        if there && key.1 == Name::device() {
            return Err(KeepError::DeviceStays);
        }
        if !there && self.items.len() == ITEMS_MAX {
            return Err(KeepError::Full);
        }
        self.items.insert(key, item.descriptor);
        Ok(())
    }

    /// Lets a mount go, with all that belongs to it.
    pub(crate) fn drop_mount(&mut self, number: u32) -> Result<(), KeepError> {
        self.mounts.remove(&number).ok_or(KeepError::NoMount(number))?;
        self.items.retain(|(mount, _), _| *mount != number);
        Ok(())
    }

    pub(crate) fn mounts(&self) -> impl Iterator<Item = &KeptMount> {
        self.mounts.values()
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = Item> {
        self.items.iter().map(|((mount, name), descriptor)| Item {
            mount: *mount,
            name: name.clone(),
            descriptor: Arc::clone(descriptor),
        })
    }

    pub(crate) fn find(&self, mount: u32, name: Name) -> Option<Arc<OwnedFd>> {
        self.items.get(&(mount, name)).cloned()
    }

    /// Lets all go.
    pub(crate) fn clear(&mut self) {
        *self = Kept::default();
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = (&KeptMount, &OwnedFd)> {
        self.mounts().filter_map(|mount| {
            let device = self.items.get(&(mount.number, Name::device()))?;
            Some((mount, device.as_ref()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, ITEMS_MAX, Item, KeepError, Kept, KeptMount, Name, NameError, Taken};
    use mounts::{Agreed, Place, Way};
    use std::sync::Arc;

    fn mount(number: u32) -> KeptMount {
        KeptMount {
            number,
            volume: "v".into(),
            place: Place { dir: "/m".into(), way: Way::Privileged, dev: (0, 7), id: 9 },
            agreed: Agreed { minor: 45, max_readahead: 1, offered: 2, flags: 3, max_write: 4 },
        }
    }

    fn item(mount: u32, name: &str) -> Item {
        let file = std::fs::File::open("/dev/null").expect("a descriptor");
        Item { mount, name: Name::new(name).expect("a name"), descriptor: Arc::new(file.into()) }
    }

    #[test]
    fn names_are_short_and_plain() {
        for good in ["device", "clone-12", "a"] {
            assert_eq!(Name::new(good).expect("a name").as_str(), good);
        }
        for bad in ["", "A", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert_eq!(Name::new(bad), Err(NameError), "{bad}");
        }
    }

    #[test]
    fn what_belongs_to_a_mount_comes_after_it_and_goes_with_it() {
        let mut kept = Kept::default();
        assert_eq!(kept.put(item(1, "device")), Err(KeepError::NoMount(1)));
        kept.add_mount(mount(1)).expect("kept");
        kept.add_mount(mount(1)).expect("the same");
        let other = KeptMount { volume: "w".into(), ..mount(1) };
        assert_eq!(kept.add_mount(other), Err(KeepError::Taken(1)));
        assert_eq!(kept.add_mount(mount(0)), Err(KeepError::Taken(0)));
        kept.put(item(1, "device")).expect("kept");
        assert_eq!(kept.put(item(1, "device")), Err(KeepError::DeviceStays));
        kept.put(item(1, "arena")).expect("kept");
        kept.put(item(1, "arena")).expect("exchanged");
        kept.put(item(0, "lock")).expect("kept");
        assert_eq!((kept.items().count(), kept.devices().count()), (3, 1));
        kept.drop_mount(1).expect("gone");
        assert_eq!(kept.drop_mount(1), Err(KeepError::NoMount(1)));
        assert_eq!(kept.items().map(|item| item.name.to_string()).collect::<Vec<_>>(), ["lock"]);
    }

    #[test]
    fn what_was_taken_follows_its_holder() {
        let mut taken =
            Taken { mounts: vec![mount(1), mount(2)], items: vec![item(1, "device"), item(2, "arena")] };
        let new = item(2, "arena");
        taken.apply(Change::Put(new.clone()));
        assert_eq!(taken.items.len(), 2);
        assert!(Arc::ptr_eq(&taken.items[1].descriptor, &new.descriptor));
        taken.apply(Change::Drop(1));
        assert_eq!((taken.mounts, taken.items.len()), (vec![mount(2)], 1));
    }

    #[test]
    fn no_more_is_kept_than_fits() {
        let mut kept = Kept::default();
        let one = item(0, "x");
        for at in 0..ITEMS_MAX {
            kept.put(Item { name: Name::new(&format!("n{at}")).expect("a name"), ..one.clone() })
                .expect("kept");
        }
        assert_eq!(kept.put(one.clone()), Err(KeepError::Full));
        kept.put(Item { name: Name::new("n0").expect("a name"), ..one }).expect("exchanged");
    }
}
