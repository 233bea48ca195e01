mod bench;
mod copies;
mod files;
mod model;
mod names;
mod stress;
mod trouble;
