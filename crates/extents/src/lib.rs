//! Seals plaintext into extents on fragment stores and reads it back verified.
