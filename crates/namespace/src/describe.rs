//! Rows as people read them.

use alloc::format;
use alloc::string::String;

/// A key in hexadecimal.
pub(crate) fn key_text(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}
