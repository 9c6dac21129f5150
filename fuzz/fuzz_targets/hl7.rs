#![no_main]
keyfold_fuzz::target!(keyfold_fuzz::hl7::run);
