pub mod copyfrom;
