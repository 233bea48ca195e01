mod bench;
mod files;
mod model;
mod names;
mod stress;
mod trouble;
