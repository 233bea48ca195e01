mod bench;
mod names;
