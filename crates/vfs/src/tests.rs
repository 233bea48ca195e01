mod bench;
mod copies;
mod files;
mod full;
mod model;
mod names;
mod stress;
mod trouble;
