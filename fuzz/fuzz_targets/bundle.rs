#![no_main]
keyfold_fuzz::target!(keyfold_fuzz::bundle::run);
