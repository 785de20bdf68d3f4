// Generated from the declarations in src/ops: do not edit. A kernel that is defined otherwise does not compile.
