mod bench;
mod files;
mod full;
mod model;
mod names;
mod quota;
mod stress;
mod trouble;
