#![no_main]

onkos_fuzz::target!(safetensors);
