//! A disk's fragments: format, index, allocator, recovery.

mod fragments;

pub use fragments::{
    DeleteError, FragmentInfo, FragmentStore, ListError, Put, PutAck, PutError, ReadError, Space, StoreFuture,
    Verified,
};
