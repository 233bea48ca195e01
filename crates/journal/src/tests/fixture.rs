//! The bytes of docs/FORMATS/log.md.
