// The (ptr, perm) pair of an op, checked.
#pragma once

#include "checks.h"
#include "cpu/rows.h"

namespace gnnscript {

class Sorted {
 public:
  // Checks shapes, dtypes and devices, and the values of `ptr` on CPU. Those of `perm` are checked
  // by the kernel, which reads them anyway.
  Sorted(const Tensor& src, const Tensor& ptr, const std::optional<Tensor>& perm) {
    check(src.dim() >= 1, "expected src with a dimension of edges, got a scalar");
    init(src, src.size(0), ptr, perm);
  }

  // For an op whose argument `like` has no edges.
  Sorted(const Tensor& like, int64_t edges, const Tensor& ptr, const std::optional<Tensor>& perm) {
    init(like, edges, ptr, perm);
  }

  int64_t num_rows() const { return ptr_.numel() - 1; }
  int64_t edges() const { return edges_; }
  const int64_t* ptr_data() const { return ptr_.const_data_ptr<int64_t>(); }
  const int64_t* perm_data() const {
    return perm_.has_value() ? perm_->const_data_ptr<int64_t>() : nullptr;
  }
  // Whether every edge belongs to a row.
  bool complete() const {
    const int64_t* p = ptr_.const_data_ptr<int64_t>();
    return p[0] == 0 && p[num_rows()] == edges_;
  }
  Rows rows(int64_t bytes_per_edge) const {
    return Rows{ptr_.const_data_ptr<int64_t>(), num_rows(), chunk_units(bytes_per_edge)};
  }
  // For an op whose kernel relies on it.
  void check_perm() const {
    if (!perm_.has_value()) return;
    const int64_t bad = find_outside(perm_data(), 0, edges_, edges_);
    if (bad >= 0) throw_bad_perm(bad);
  }
  [[noreturn]] void throw_bad_perm(int64_t position) const {
    out_of_range("perm", position, perm_data()[position], edges_, "the number of edges");
  }

  const std::optional<Tensor>& perm() const { return perm_; }

  // Checks the values of ptr, which `p` points to in memory of the host.
  void check_values(const int64_t* p) const {
    const int64_t rows = num_rows();
    bool falls = p[0] < 0 || p[rows] > edges_;
    for (int64_t row = 0; row < rows; ++row) falls |= p[row + 1] < p[row];
    if (!falls) return;
    for (int64_t row = 0; row <= rows; ++row) {
      const int64_t low = row > 0 ? p[row - 1] : 0;
      check(p[row] >= low && p[row] <= edges_, "expected ptr never to decrease and to lie within [0, ",
            edges_, "], the number of edges, got ptr[", row, "] = ", p[row],
            row > 0 ? message(" after ", low) : std::string());
    }
  }

 private:
  void init(const Tensor& like, int64_t edges, const Tensor& ptr,
            const std::optional<Tensor>& perm) {
    edges_ = edges;
    check(ptr.dim() == 1 && ptr.numel() > 0, "expected ptr of shape [N + 1], got shape ",
          shape_of(ptr));
    check(ptr.scalar_type() == ScalarType::Long, "expected ptr of dtype int64, got ",
          torch::headeronly::toString(ptr.scalar_type()));
    check_same_device(like, ptr, "src", "ptr");
    ptr_ = torch::stable::contiguous(ptr);
    if (perm.has_value()) {
      check(perm->dim() == 1 && perm->numel() == edges, "expected perm of shape [", edges,
            "], one for each edge of src, got shape ", shape_of(*perm));
      check(perm->scalar_type() == ScalarType::Long, "expected perm of dtype int64, got ",
            torch::headeronly::toString(perm->scalar_type()));
      check_same_device(like, *perm, "src", "perm");
      perm_ = torch::stable::contiguous(*perm);
    }
    if (like.is_cpu()) check_values(ptr_.const_data_ptr<int64_t>());
  }

  Tensor ptr_;
  std::optional<Tensor> perm_;
  int64_t edges_ = 0;
};

}  // namespace gnnscript
