# The version is the Python package's. Before 1.0 a minor version may change the headers.
file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/../../../../__init__.py" _gnnscript_line
     REGEX "^__version__ = ")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" PACKAGE_VERSION "${_gnnscript_line}")
string(REGEX MATCH "^[0-9]+\\.[0-9]+" _gnnscript_series "${PACKAGE_VERSION}")
if(PACKAGE_FIND_VERSION VERSION_LESS_EQUAL PACKAGE_VERSION
   AND PACKAGE_FIND_VERSION MATCHES "^${_gnnscript_series}(\\.|$)")
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
  if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
  endif()
endif()
unset(_gnnscript_line)
unset(_gnnscript_series)
