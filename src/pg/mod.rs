pub mod copyfrom;
pub mod spi;
