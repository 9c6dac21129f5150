#![no_main]
keyfold_fuzz::target!(keyfold_fuzz::high_water::run);
