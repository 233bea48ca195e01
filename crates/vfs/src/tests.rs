mod bench;
mod compact;
mod files;
mod model;
mod names;
mod stress;
mod trouble;
