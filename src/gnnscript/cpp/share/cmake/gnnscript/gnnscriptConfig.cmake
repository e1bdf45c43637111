# find_package(gnnscript): the header-only library gnnscript::gnnscript, which brings libtorch along.
#
# Configure with -DCMAKE_PREFIX_PATH="$(gnnscript --cmake-prefix)", which names this package and the
# libtorch in Python's torch, or name another libtorch there.
include(CMakeFindDependencyMacro)
find_dependency(Torch)

if(NOT TARGET gnnscript::gnnscript)
  add_library(gnnscript::gnnscript INTERFACE IMPORTED)
  get_filename_component(_gnnscript_root "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
  target_include_directories(gnnscript::gnnscript INTERFACE "${_gnnscript_root}/include")
  target_compile_features(gnnscript::gnnscript INTERFACE cxx_std_20) # as torch's headers do
  separate_arguments(_gnnscript_flags NATIVE_COMMAND "${TORCH_CXX_FLAGS}")
  target_compile_options(gnnscript::gnnscript INTERFACE ${_gnnscript_flags})
  target_link_libraries(gnnscript::gnnscript INTERFACE ${TORCH_LIBRARIES})
  unset(_gnnscript_flags)
  unset(_gnnscript_root)
endif()
