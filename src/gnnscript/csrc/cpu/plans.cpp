// What one forward keeps: sorted edges, and what layers compute of them; later layers take it over.
//
// Equal calls are often not equal to a compiler: the number of nodes is the size of another tensor
// in each layer. What a thread has computed between share_plans(True) and share_plans(False) is
// kept, together with the tensors that it was computed from, so that no others can come to lie at
// their addresses. A write to a tensor counts as another version of it; of tensors that have no
// versions, those of inference mode, the contents are kept beside, and compared.
//
// On CUDA, it is kept for the stream that the work went to, and for the graph that it was recorded
// into: see work_place in cuda/place.cu. To compare contents would be to wait for the device.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "checks.h"
#include "parallel.h"
#include "registration.h"

namespace gnnscript {

std::tuple<Tensor, Tensor> csr(const Tensor& index, int64_t size);  // the op's kernel

namespace {

using torch::stable::detail::from;
using torch::stable::detail::to;

using Some = std::optional<Tensor>;
using Given = std::array<Some, 4>;

constexpr size_t kMost = 8;  // of each kind; more are forgotten, the oldest first

template <typename T, typename... Args>
T call(const char* name, const Args&... args) {
  std::array<StableIValue, sizeof...(Args) + 1> stack{from(args)...};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher(name, "", stack.data(), TORCH_ABI_VERSION));
  return to<T>(stack[0]);
}

// Where the work on tensors goes: to a stream, and perhaps into a graph. All work of a thread on CPU
// is done when a call returns.
struct Place {
  bool on_device = false;
  torch::headeronly::DeviceType type{};
  int32_t device = -1;
  int64_t stream = 0, graph = 0;

  bool operator==(const Place& other) const {
    return on_device == other.on_device && type == other.type && device == other.device &&
           stream == other.stream && graph == other.graph;
  }
};

#ifdef GNNSCRIPT_EMULATED
constexpr bool kOnHost = false;  // there are CUDA's kernels alone
#else
constexpr bool kOnHost = true;
#endif

bool is_on_host(const Tensor& tensor) { return kOnHost && tensor.is_cpu(); }

// Takes in where the work on a tensor goes; false where that is not known, or somewhere else.
bool find_place(const Tensor& tensor, std::optional<Place>& place) {
  if (is_on_host(tensor)) return true;
  const auto device = tensor.device();
  if (place) return place->type == device.type() && place->device == device.index();
  if (!tensor.is_cuda() && kOnHost) return false;
  std::array<StableIValue, 2> stack{from(tensor)};
  // It is an op of the library for CUDA: without that, the kernels will say what is missing.
  if (torch_call_dispatcher("gnnscript::work_place", "", stack.data(), TORCH_ABI_VERSION) != 0) {
    return false;
  }
  place = Place{true, device.type(), device.index(), to<int64_t>(stack[0]), to<int64_t>(stack[1])};
  return true;
}

bool is_inference(const Tensor& tensor) { return call<bool>("aten::is_inference", tensor); }

// Whether a tensor is what its memory holds, and whether that was written to can be found out.
bool is_plain(const Tensor& tensor) {
  int32_t layout = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(tensor.get(), &layout));
  return layout == aoti_torch_layout_strided() && (tensor.is_cpu() || !is_inference(tensor)) &&
         !call<bool>("aten::is_conj", tensor) && !call<bool>("aten::is_neg", tensor);
}

// Whether two pieces of memory hold the same bits.
bool are_equal(const void* some, const void* others, int64_t bytes) {
  constexpr int64_t kPiece = int64_t{1} << 18;
  std::atomic<bool> equal{true};
  parallel_tasks(ceil_div(bytes, kPiece), [&](int64_t task) {
    const int64_t begin = task * kPiece, count = std::min(bytes - begin, kPiece);
    if (equal.load(std::memory_order_relaxed) &&
        std::memcmp(static_cast<const char*>(some) + begin,
                    static_cast<const char*>(others) + begin, static_cast<size_t>(count)) != 0) {
      equal.store(false, std::memory_order_relaxed);
    }
  });
  return equal;
}

// A tensor as it was: which memory, and how many times that had been written to, or what it held.
class Snapshot {
 public:
  explicit Snapshot(const Tensor& tensor) : tensor_(tensor) {
    if (is_inference(tensor)) {
      contents_ = torch::stable::contiguous(torch::stable::clone(tensor));
    } else {
      version_ = version_of(tensor);
    }
  }

  bool is_still(const Tensor& other) const {
    if (tensor_.const_data_ptr() != other.const_data_ptr() || tensor_.dim() != other.dim() ||
        tensor_.scalar_type() != other.scalar_type() || tensor_.device() != other.device()) {
      return false;
    }
    for (int64_t d = 0; d < tensor_.dim(); ++d) {
      if (tensor_.size(d) != other.size(d) || tensor_.stride(d) != other.stride(d)) return false;
    }
    if (contents_.has_value() != is_inference(other)) return false;
    return contents_ ? holds(other) : version_ == version_of(other);
  }

 private:
  static int64_t version_of(const Tensor& tensor) {
    return call<int64_t>("aten::_version", tensor);
  }

  bool holds(const Tensor& other) const {
    const Tensor values = torch::stable::contiguous(other);
    return are_equal(contents_->const_data_ptr(), values.const_data_ptr(),
                     values.numel() * static_cast<int64_t>(values.element_size()));
  }

  Tensor tensor_;
  int64_t version_ = 0;
  Some contents_;
};

struct Plan {
  Snapshot index;
  int64_t size;
  Tensor ptr, perm;
};

struct Known {
  std::string key;
  std::array<std::optional<Snapshot>, 4> given;
  std::vector<int64_t> numbers;
  std::optional<Place> place;
  bool gradients;
  std::vector<Tensor> made;
};

struct Shared {
  bool active = false;
  std::vector<Plan> plans;
  std::vector<Known> known;
};

thread_local Shared shared;

template <typename T>
void keep(std::vector<T>& kept, T&& one) {
  if (kept.size() == kMost) kept.erase(kept.begin());
  kept.push_back(std::move(one));
}

// The first tensor is not read: TorchScript would call an op of constants alone when it compiles,
// and make one of two equal calls.
bool share_plans(const Tensor&, bool active) {
  shared = Shared();
  shared.active = active;
  return true;
}

std::tuple<Tensor, Tensor> shared_csr(const Tensor& index, int64_t size) {
  const bool may_keep = shared.active && index.dim() == 1 && index.numel() > 0;
  if (!may_keep || !is_plain(index)) return csr(index, size);
  for (const Plan& plan : shared.plans) {
    if (plan.size == size && plan.index.is_still(index)) return {plan.ptr, plan.perm};
  }
  const auto [ptr, perm] = csr(index, size);
  keep(shared.plans, Plan{Snapshot(index), size, ptr, perm});
  return {ptr, perm};
}

// Whether what comes of tensors can be kept; says where the work on them goes.
bool can_keep(const Given& given, std::optional<Place>& place) {
  return std::all_of(given.begin(), given.end(), [&](const Some& one) {
    return !one || (is_plain(*one) && find_place(*one, place));
  });
}

std::vector<Tensor> find_known(
    const Tensor&, std::string key, std::vector<int64_t> numbers, Some a, Some b, Some c, Some d) {
  const Given given{a, b, c, d};
  std::optional<Place> place;
  if (!shared.active || !can_keep(given, place)) return {};
  const bool gradients = aoti_torch_grad_mode_is_enabled();
  for (const Known& known : shared.known) {
    if (known.key == key && known.numbers == numbers && known.place == place &&
        known.gradients == gradients &&
        std::equal(given.begin(), given.end(), known.given.begin(),
                   [](const Some& one, const std::optional<Snapshot>& then) {
                     return one ? then && then->is_still(*one) : !then;
                   })) {
      return known.made;
    }
  }
  return {};
}

// What has a gradient is not kept: each use has a graph of its own, to go back through once.
bool keep_known(
    const Tensor&, std::string key, std::vector<int64_t> numbers, Some a, Some b, Some c, Some d,
    const Tensor& made, Some made_1, Some made_2, Some made_3) {
  const Given given{a, b, c, d};
  std::optional<Place> place;
  if (!shared.active || !can_keep(given, place)) return true;
  Known known{key, {}, numbers, place, aoti_torch_grad_mode_is_enabled(), {}};
  for (const Some& one : Given{made, made_1, made_2, made_3}) {
    if (!one) break;
    // Nor what was made elsewhere than the work on what is given goes.
    const bool elsewhere = !is_on_host(*one) && (!place || !find_place(*one, place));
    if (elsewhere || !call<bool>("aten::is_leaf", *one)) return true;
    known.made.push_back(*one);
  }
  for (size_t i = 0; i < given.size(); ++i) {
    if (given[i]) known.given[i].emplace(*given[i]);
  }
  keep(shared.known, std::move(known));
  return true;
}

}  // namespace

GNNSCRIPT_IMPLEMENT(CPU, m) {
  m.impl("share_plans", TORCH_BOX(&share_plans));
  m.impl("shared_csr", TORCH_BOX(&shared_csr));
}

// For any device: what is not kept is computed again.
GNNSCRIPT_IMPLEMENT(CompositeExplicitAutograd, m) {
  m.impl("find_known", TORCH_BOX(&find_known));
  m.impl("keep_known", TORCH_BOX(&keep_known));
}

}  // namespace gnnscript
