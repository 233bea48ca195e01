//! One partition: openraft over our log and our row store.
