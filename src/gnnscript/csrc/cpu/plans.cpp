// What one forward keeps: sorted edges, and what layers compute of them; later layers take it over.
//
// Equal calls are often not equal to a compiler: the number of nodes is the size of another tensor
// in each layer. What a thread has computed between share_plans(True) and share_plans(False) is
// kept, together with the tensors that it was computed from, so that no others can come to lie at
// their addresses. A write to a tensor counts as another version of it, and what comes of tensors
// that have no versions is not kept.
#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "checks.h"
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

// Whether a tensor is what its memory holds, and says when that is written to. On CPU alone:
// elsewhere, work goes to streams.
bool is_plain(const Tensor& tensor) {
  int32_t layout = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(tensor.get(), &layout));
  return tensor.is_cpu() && layout == aoti_torch_layout_strided() &&
         !call<bool>("aten::is_inference", tensor) && !call<bool>("aten::is_conj", tensor) &&
         !call<bool>("aten::is_neg", tensor);
}

// A tensor as it was: which memory, and how many times that had been written to.
class Snapshot {
 public:
  explicit Snapshot(const Tensor& tensor)
      : tensor_(tensor), version_(call<int64_t>("aten::_version", tensor)) {}

  bool is_still(const Tensor& other) const {
    if (tensor_.const_data_ptr() != other.const_data_ptr() || tensor_.dim() != other.dim() ||
        tensor_.scalar_type() != other.scalar_type() || tensor_.device() != other.device() ||
        version_ != call<int64_t>("aten::_version", other)) {
      return false;
    }
    for (int64_t d = 0; d < tensor_.dim(); ++d) {
      if (tensor_.size(d) != other.size(d) || tensor_.stride(d) != other.stride(d)) return false;
    }
    return true;
  }

 private:
  Tensor tensor_;
  int64_t version_;
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

bool are_plain(const Given& given) {
  return std::all_of(given.begin(), given.end(), [](const Some& one) {
    return !one || is_plain(*one);
  });
}

std::vector<Tensor> find_known(
    const Tensor&, std::string key, std::vector<int64_t> numbers, Some a, Some b, Some c, Some d) {
  const Given given{a, b, c, d};
  if (!shared.active || !are_plain(given)) return {};
  const bool gradients = aoti_torch_grad_mode_is_enabled();
  for (const Known& known : shared.known) {
    if (known.key == key && known.numbers == numbers && known.gradients == gradients &&
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
  if (!shared.active || !are_plain(given)) return true;
  Known known{key, {}, numbers, aoti_torch_grad_mode_is_enabled(), {}};
  for (const Some& one : Given{made, made_1, made_2, made_3}) {
    if (!one) break;
    if (!call<bool>("aten::is_leaf", *one)) return true;
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
