//! The program as its users meet it: by its command line, its files and its exit codes.

mod config;
mod homes;
mod network;
mod program;
