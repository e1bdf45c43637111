// Which version of the Python package a library belongs to; ops/library.py asks for it.
#pragma once

// Counts changes of the ops: of their schemas, and of what they are given and return.
#define GNNSCRIPT_INTERFACE 7

#define GNNSCRIPT_TELL_INTERFACE(name)                                       \
  extern "C" __attribute__((visibility("default"))) int name() {             \
    return GNNSCRIPT_INTERFACE;                                              \
  }
