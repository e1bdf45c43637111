#include "edge_program/program.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <tuple>
#include <unordered_map>

namespace gnnscript {
namespace {

constexpr int kMaxDepth = 200;         // of parentheses and calls: bounds the recursion
constexpr int kMaxOperands = 64;
constexpr size_t kMaxNodes = 4096;
constexpr size_t kMaxCached = 1024;

struct Function {
  const char* name;
  Op op;
  int arguments;   // expressions
  bool literal;    // whether a number follows them
};

constexpr Function kFunctions[] = {
    {"relu", Op::relu, 1, false},         {"leaky_relu", Op::leaky_relu, 1, true},
    {"elu", Op::elu, 1, true},            {"exp", Op::exp, 1, false},
    {"log", Op::log, 1, false},           {"sqrt", Op::sqrt, 1, false},
    {"rsqrt", Op::rsqrt, 1, false},       {"abs", Op::abs, 1, false},
    {"sign", Op::sign, 1, false},         {"square", Op::square, 1, false},
    {"reciprocal", Op::reciprocal, 1, false}, {"sigmoid", Op::sigmoid, 1, false},
    {"tanh", Op::tanh, 1, false},         {"softplus", Op::softplus, 1, false},
    {"silu", Op::silu, 1, false},         {"gelu", Op::gelu, 1, false},
    {"gelu_tanh", Op::gelu_tanh, 1, false}, {"erf", Op::erf, 1, false},
    {"sin", Op::sin, 1, false},           {"cos", Op::cos, 1, false},
    {"rounded", Op::rounded, 1, false},   {"pow", Op::pow, 1, true},
    {"clamp_min", Op::clamp_min, 1, true}, {"clamp_max", Op::clamp_max, 1, true},
    {"maximum", Op::maximum, 2, false},   {"minimum", Op::minimum, 2, false},
    {"where", Op::where, 3, false},
};

struct Node {
  Op op;
  int a, b, c;       // nodes, or the operand of a load in `a`
  double value;
  bool invariant;    // the same for all edges
};

bool starts_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool in_name(char c) { return starts_name(c) || is_digit(c); }

int arity(Op op) {
  if (op <= Op::load) return 0;
  if (op <= Op::rounded) return 1;
  return op == Op::where ? 3 : 2;
}

// A recursive descent over the text; equal subexpressions become one node.
class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  int parse() {
    while (at_binding()) parse_binding();
    const int root = comparison();
    skip_space();
    if (at_ < text_.size()) fail("expected an operator or the end");
    if (sides.empty()) fail("expected at least one operand");
    return root;
  }

  std::vector<Node> nodes;
  std::vector<char> sides;

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw ProgramError("edge program '" + text_ + "': " + what + " at position " +
                       std::to_string(at_));
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t'))
      ++at_;
  }

  bool take(const char* token) {
    skip_space();
    const size_t length = std::strlen(token);
    if (text_.compare(at_, length, token) != 0) return false;
    at_ += length;
    return true;
  }

  void expect(const char* token) {
    if (!take(token)) fail(std::string("expected '") + token + "'");
  }

  std::string peek_name() {
    skip_space();
    size_t end = at_;
    if (end < text_.size() && starts_name(text_[end]))
      while (end < text_.size() && in_name(text_[end])) ++end;
    return text_.substr(at_, end - at_);
  }

  // `t1 = expression;` names a value that is used more than once.
  bool at_binding() {
    const std::string name = peek_name();
    if (name.empty()) return false;
    size_t next = at_ + name.size();
    while (next < text_.size() && text_[next] == ' ') ++next;
    return next < text_.size() && text_[next] == '=' && text_.compare(next, 2, "==") != 0;
  }

  void parse_binding() {
    const std::string name = peek_name();
    if (name[0] != 't' || name.size() == 1 ||
        !std::all_of(name.begin() + 1, name.end(), is_digit))
      fail("expected a name such as t0 before '='");
    at_ += name.size();
    expect("=");
    bound_[name] = comparison();
    expect(";");
  }

  int comparison() {
    const int left = sum();
    for (const auto& [token, op] : kComparisons)
      if (take(token)) return add(op, left, sum());
    return left;
  }

  int sum() {
    int left = product();
    while (true) {
      if (take("+")) left = add(Op::add, left, product());
      else if (take("-")) left = add(Op::subtract, left, product());
      else return left;
    }
  }

  int product() {
    int left = unary();
    while (true) {
      if (take("*")) left = add(Op::multiply, left, unary());
      else if (take("/")) left = add(Op::divide, left, unary());
      else return left;
    }
  }

  int unary() {
    if (++depth_ > kMaxDepth) fail("expected fewer than 200 nested expressions");
    int result;
    if (take("-")) {
      skip_space();
      if (at_number()) result = constant(-number());
      else result = add(Op::negate, unary());
    } else {
      result = primary();
    }
    --depth_;
    return result;
  }

  bool at_number() {
    skip_space();
    if (at_ >= text_.size()) return false;
    const std::string name = peek_name();
    return is_digit(text_[at_]) || text_[at_] == '.' || name == "inf" || name == "nan";
  }

  double number() {
    if (take("inf")) return std::numeric_limits<double>::infinity();
    if (take("nan")) return std::numeric_limits<double>::quiet_NaN();
    double value = 0;
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc()) fail("expected a number");
    at_ += static_cast<size_t>(end - begin);
    return value;
  }

  double literal() {
    const double sign = take("-") ? -1.0 : 1.0;
    if (!at_number()) fail("expected a number");
    return sign * number();
  }

  int primary() {
    if (take("(")) {
      const int inner = comparison();
      expect(")");
      return inner;
    }
    if (at_number()) return constant(number());
    const std::string name = peek_name();
    if (name.empty()) fail("expected a number, an operand, a function or '('");
    if (const auto found = bound_.find(name); found != bound_.end()) {
      at_ += name.size();
      return found->second;
    }
    if (name.size() > 1 && std::strchr("ijes", name[0]) &&
        std::all_of(name.begin() + 1, name.end(), is_digit))
      return operand(name);
    for (const Function& function : kFunctions)
      if (name == function.name) return call(function);
    fail("expected an operand or a function, got '" + name + "'");
  }

  int operand(const std::string& name) {
    const size_t position = name.size() > 3 ? kMaxOperands : std::stoul(name.substr(1));
    if (position >= kMaxOperands) fail("expected an operand below 64, got '" + name + "'");
    if (position >= sides.size()) sides.resize(position + 1, 0);
    if (sides[position] != 0 && sides[position] != name[0])
      fail("expected one letter for operand " + std::to_string(position) + ", got " +
           sides[position] + " and " + name[0] + "; give the tensor twice");
    sides[position] = name[0];
    at_ += name.size();
    return intern({Op::load, static_cast<int>(position), -1, -1, 0.0, name[0] == 's'});
  }

  int call(const Function& function) {
    at_ += std::strlen(function.name);
    expect("(");
    int arguments[3] = {-1, -1, -1};
    for (int n = 0; n < function.arguments; ++n) {
      if (n > 0) expect(",");
      arguments[n] = comparison();
    }
    double value = 0;
    if (function.literal) {
      expect(",");
      value = literal();
    }
    expect(")");
    return add(function.op, arguments[0], arguments[1], arguments[2], value);
  }

  int constant(double value) { return intern({Op::constant, -1, -1, -1, value, true}); }

  int add(Op op, int a, int b = -1, int c = -1, double value = 0) {
    bool invariant = nodes[a].invariant;
    if (b >= 0) invariant = invariant && nodes[b].invariant;
    if (c >= 0) invariant = invariant && nodes[c].invariant;
    return intern({op, a, b, c, value, invariant});
  }

  int intern(const Node& node) {
    int64_t bits;
    std::memcpy(&bits, &node.value, sizeof bits);
    const auto key = std::make_tuple(static_cast<int>(node.op), node.a, node.b, node.c, bits);
    const auto [found, is_new] = known_.emplace(key, static_cast<int>(nodes.size()));
    if (is_new) {
      if (nodes.size() >= kMaxNodes) fail("expected at most 4096 operations");
      nodes.push_back(node);
    }
    return found->second;
  }

  // Longer tokens first.
  static constexpr std::pair<const char*, Op> kComparisons[] = {
      {"==", Op::equal}, {"!=", Op::not_equal}, {"<=", Op::less_equal},
      {">=", Op::greater_equal}, {"<", Op::less}, {">", Op::greater}};

  const std::string& text_;
  size_t at_ = 0;
  int depth_ = 0;
  std::map<std::string, int> bound_;
  std::map<std::tuple<int, int, int, int, int64_t>, int> known_;
};

// Gives the nodes that the root needs their registers. Nodes stand in an order of evaluation.
class Allocator {
 public:
  Allocator(const std::vector<Node>& nodes, int root, Program& program)
      : nodes_(nodes), program_(program), uses_(nodes.size(), 0), place_(nodes.size(), -1) {
    std::vector<char> needed(nodes.size(), 0);
    needed[root] = 1;
    ++uses_[root];
    for (int n = root; n >= 0; --n) {
      if (!needed[n]) continue;
      for_arguments(n, [&](int argument) {
        needed[argument] = 1;
        ++uses_[argument];
      });
    }
    read_ = uses_;
    for (const bool invariant : {true, false})
      for (int n = 0; n <= root; ++n)
        if (needed[n] && nodes[n].invariant == invariant) place(n);
    program.result = place_[root];
    program.may_skip.assign(program.sides.size(), 0);
    for (Instruction& instruction : program.body) mark_loads(instruction);
  }

 private:
  template <class F>
  void for_arguments(int n, F&& visit) const {
    const Node& node = nodes_[n];
    const int count = arity(node.op);
    if (count > 0) visit(node.a);
    if (count > 1) visit(node.b);
    if (count > 2) visit(node.c);
  }

  void mark_loads(Instruction& instruction) {
    const Node& node = nodes_[made_by_.at(&instruction - program_.body.data())];
    const auto only_load = [&](int argument) {
      const Node& load = nodes_[argument];
      const bool only = load.op == Op::load && !load.invariant && read_[argument] == 1;
      if (only) program_.may_skip[static_cast<size_t>(load.a)] = 1;
      return only ? load.a : -1;
    };
    if (arity(node.op) != 2) return;
    instruction.load_a = only_load(node.a);
    instruction.load_b = only_load(node.b);
  }

  void place(int n) {
    const Node& node = nodes_[n];
    // A register is free again before the result is placed: instructions may work in place.
    if (!node.invariant)
      for_arguments(n, [&](int argument) {
        if (--uses_[argument] == 0 && !nodes_[argument].invariant) free_.push_back(place_[argument]);
      });
    if (node.invariant || free_.empty()) {
      place_[n] = program_.registers++;
    } else {
      place_[n] = free_.back();
      free_.pop_back();
    }
    const auto at = [&](int argument) { return argument < 0 ? -1 : place_[argument]; };
    const bool load = node.op == Op::load;
    auto& code = node.invariant ? program_.prologue : program_.body;
    code.push_back({node.op, place_[n], load ? node.a : at(node.a), at(node.b), at(node.c),
                    node.value});
    if (!node.invariant) made_by_.push_back(n);
  }

  const std::vector<Node>& nodes_;
  Program& program_;
  std::vector<int> uses_, place_, free_;
  std::vector<int> read_;     // how often each node is read
  std::vector<int> made_by_;  // the node of each instruction of the body
};

void find_pattern(const std::vector<Node>& nodes, int root, Program& program) {
  const auto is_load = [&](int n, char side) {
    return nodes[n].op == Op::load && program.sides[nodes[n].a] == side;
  };
  const Node& node = nodes[root];
  if (is_load(root, 'j')) {
    program.pattern = Pattern::other_row;
    program.pattern_other = node.a;
  } else if (node.op == Op::multiply) {
    const bool edge_first = is_load(node.a, 'e') && is_load(node.b, 'j');
    if (!edge_first && !(is_load(node.b, 'e') && is_load(node.a, 'j'))) return;
    program.pattern = Pattern::edge_times_other;
    program.pattern_edge = nodes[edge_first ? node.a : node.b].a;
    program.pattern_other = nodes[edge_first ? node.b : node.a].a;
  }
}

std::shared_ptr<const Program> compile(const std::string& text) {
  auto program = std::make_shared<Program>();
  program->text = text;
  Parser parser(text);
  const int root = parser.parse();
  program->sides = parser.sides;
  Allocator(parser.nodes, root, *program);
  find_pattern(parser.nodes, root, *program);
  program->prologue_code = program->prologue.data();
  program->prologue_length = static_cast<int64_t>(program->prologue.size());
  program->body_code = program->body.data();
  program->skip_loads = program->may_skip.data();
  program->body_length = static_cast<int64_t>(program->body.size());
  return program;
}

}  // namespace

std::shared_ptr<const Program> compile_program(const std::string& text) {
  static std::mutex mutex;
  static std::unordered_map<std::string, std::shared_ptr<const Program>> known;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (const auto found = known.find(text); found != known.end()) return found->second;
  }
  auto program = compile(text);
  const std::lock_guard<std::mutex> lock(mutex);
  if (known.size() >= kMaxCached) known.clear();
  return known.emplace(text, std::move(program)).first->second;
}

}  // namespace gnnscript
