#![no_main]

onkos_fuzz::target!(h5);
