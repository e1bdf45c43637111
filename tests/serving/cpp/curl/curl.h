// What the client uses of libcurl's binary interface, which is the same since 7.66 (2019), for tests on
// machines that have the library, as the server's wheel brings it, without its headers.
#pragma once

#include <cstddef>
#include <cstdint>

using CURL = void;
using CURLM = void;
using curl_off_t = int64_t;
struct curl_slist;
struct curl_waitfd;

enum CURLcode { CURLE_OK = 0, CURLE_ABORTED_BY_CALLBACK = 42, CURL_LAST = 200 };
enum CURLMcode { CURLM_OK = 0, CURLM_LAST = 100 };
enum CURLMSG { CURLMSG_NONE = 0, CURLMSG_DONE = 1 };
enum CURLINFO { CURLINFO_RESPONSE_CODE = 0x200002 };
enum CURLoption {
  CURLOPT_NOSIGNAL = 99,
  CURLOPT_TIMEOUT_MS = 155,
  CURLOPT_WRITEDATA = 10001,
  CURLOPT_URL = 10002,
  CURLOPT_POSTFIELDS = 10015,
  CURLOPT_HTTPHEADER = 10023,
  CURLOPT_HEADERDATA = 10029,
  CURLOPT_WRITEFUNCTION = 20011,
  CURLOPT_HEADERFUNCTION = 20079,
  CURLOPT_POSTFIELDSIZE_LARGE = 30120,
};
constexpr long CURL_GLOBAL_DEFAULT = 3;

struct CURLMsg {
  CURLMSG msg;
  CURL* easy_handle;
  union {
    void* whatever;
    CURLcode result;
  } data;
};

extern "C" {
CURLcode curl_global_init(long flags);
CURL* curl_easy_init();
void curl_easy_cleanup(CURL* handle);
CURLcode curl_easy_setopt(CURL* handle, CURLoption option, ...);
CURLcode curl_easy_getinfo(CURL* handle, CURLINFO info, ...);
const char* curl_easy_strerror(CURLcode code);
int curl_strnequal(const char* a, const char* b, size_t length);
curl_slist* curl_slist_append(curl_slist* list, const char* text);
void curl_slist_free_all(curl_slist* list);
CURLM* curl_multi_init();
CURLMcode curl_multi_cleanup(CURLM* multi);
CURLMcode curl_multi_add_handle(CURLM* multi, CURL* handle);
CURLMcode curl_multi_remove_handle(CURLM* multi, CURL* handle);
CURLMcode curl_multi_perform(CURLM* multi, int* running);
CURLMsg* curl_multi_info_read(CURLM* multi, int* left);
CURLMcode curl_multi_poll(CURLM* multi, curl_waitfd* extra, unsigned count, int timeout_ms, int* ready);
CURLMcode curl_multi_wakeup(CURLM* multi);
}
