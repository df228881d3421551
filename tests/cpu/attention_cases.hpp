/// Attention by its definition, one query at a time in float64, and the cases that the tests run.
#pragma once

#include "tensors.hpp"

namespace parscale::test {

/// Sizes of one call; D and P come as template arguments.
struct AttentionSizes {
  Index sequences, tokens, heads, kv_heads, prefix;
  bool starts = false;           ///< documents of random lengths
  std::vector<Index> past = {};  ///< tokens already in a cache, for each sequence
};

/// Random operands of one call.
template <class T>
struct AttentionCase {
  AttentionSizes sizes;
  Index head_dim, replicas, capacity = 0;
  Tensor<std::int32_t> starts{};
  Tensor<Index> past{};
  Tensor<T> qkv{}, keys{}, values{}, prefix_k{}, prefix_v{};

  AttentionCase(const AttentionSizes& s, Index d, Index p) : sizes(s), head_dim(d), replicas(p) {
    qkv = random_tensor<T>({rows(), (s.heads + 2 * s.kv_heads) * d}, 1);
    if (s.prefix > 0) {
      prefix_k = random_tensor<T>({p, s.kv_heads, s.prefix, d}, 2);
      prefix_v = random_tensor<T>({p, s.kv_heads, s.prefix, d}, 3);
    }
    if (s.starts) make_starts();
    if (!s.past.empty()) make_cache();
  }

  Index rows() const { return replicas * sizes.sequences * sizes.tokens; }
  Layout layout() const {
    return {.sequences = sizes.sequences,
            .tokens = sizes.tokens,
            .replicas = static_cast<int>(replicas),
            .past = past.in(),
            .starts = starts.in()};
  }
  op::Attend<T> attend(Index sources, Tensor<T>& out, Tensor<T>& log_sum) const {
    out = Tensor<T>({rows(), sources * sizes.heads * head_dim}, T(77));
    log_sum = Tensor<T>({rows(), sizes.heads});
    return {.layout = layout(),
            .heads = sizes.heads,
            .kv_heads = sizes.kv_heads,
            .qkv = qkv.in(),
            .keys = keys.in(),
            .values = values.in(),
            .prefix_k = prefix_k.in(),
            .prefix_v = prefix_v.in(),
            .out = out.out(),
            .log_sum = log_sum.out()};
  }

 private:
  void make_starts() {
    starts = Tensor<std::int32_t>({sizes.sequences, sizes.tokens});
    const auto seams = random_integers<Index>(starts.extent, 9, 4);
    for (Index n = 0; n < starts.count(); ++n) {
      const Index token = n % sizes.tokens;
      const bool seam = token == 0 || seams[n] == 0 || token % 300 == 299;
      starts[n] = seam ? static_cast<std::int32_t>(token) : starts[n - 1];
    }
  }
  void make_cache() {
    past = Tensor<Index>({sizes.sequences});
    past.values = sizes.past;
    capacity = *std::max_element(sizes.past.begin(), sizes.past.end()) + sizes.tokens + 3;
    keys = random_tensor<T>({replicas * sizes.sequences, sizes.kv_heads, capacity, head_dim}, 5);
    values = random_tensor<T>(keys.extent, 6);
  }
};

/// The definition.
class NaiveAttention {
 public:
  Tensor<double> out, log_sum;

  template <class T>
  NaiveAttention(const AttentionCase<T>& a, bool expanded) {
    const AttentionSizes& s = a.sizes;
    const Index sources = expanded ? a.replicas : 1;
    out = Tensor<double>({a.rows(), sources * s.heads * a.head_dim});
    log_sum = Tensor<double>({a.rows(), s.heads});
    for (Index row = 0; row < a.rows(); ++row)
      for (Index head = 0; head < s.heads; ++head) {
        collect(a, expanded, row, head);
        attend(a, sources, row, head);
      }
  }

 private:
  template <class T>
  struct KeyValue {
    const T *key, *value;
    Index source;
  };

  template <class T>
  static std::vector<KeyValue<T>> seen(const AttentionCase<T>& a, bool expanded, Index row, Index head) {
    const AttentionSizes& s = a.sizes;
    const Index d = a.head_dim, width = a.qkv.extent[1], g = head / (s.heads / s.kv_heads);
    const Index token = row % s.tokens, stream = row / s.tokens, replica = stream / s.sequences,
                sequence = stream % s.sequences, positions = s.sequences * s.tokens;
    const Index own = expanded ? replica : 0;
    std::vector<KeyValue<T>> list;
    for (Index t = 0; t < s.prefix; ++t) {
      const Index at = ((replica * s.kv_heads + g) * s.prefix + t) * d;
      list.push_back({&a.prefix_k[at], &a.prefix_v[at], own});
    }
    const auto of_row = [&](Index r, Index source) {
      list.push_back({&a.qkv[r * width + (s.heads + g) * d],
                      &a.qkv[r * width + (s.heads + s.kv_heads + g) * d], source});
    };
    if (a.capacity > 0) {
      for (Index j = 0; j <= s.past[static_cast<std::size_t>(sequence)] + token; ++j) {
        const Index at = ((stream * s.kv_heads + g) * a.capacity + j) * d;
        list.push_back({&a.keys[at], &a.values[at], own});
      }
    } else {
      const Index first = s.starts ? a.starts[sequence * s.tokens + token] : 0;
      for (Index j = first; j <= token; ++j) of_row(stream * s.tokens + j, own);
    }
    for (Index p = 0; expanded && p < a.replicas; ++p)
      if (p != replica) of_row(p * positions + row % positions, p);
    return list;
  }

  template <class T>
  void collect(const AttentionCase<T>& a, bool expanded, Index row, Index head) {
    const T* q = &a.qkv[row * a.qkv.extent[1] + head * a.head_dim];
    weights_.clear();
    values_.clear();
    sources_.clear();
    double total = 0;
    for (const auto& seen_one : seen(a, expanded, row, head)) {
      double score = 0;
      for (Index d = 0; d < a.head_dim; ++d)
        score += static_cast<double>(q[d]) * static_cast<double>(seen_one.key[d]);
      weights_.push_back(std::exp(score / std::sqrt(static_cast<double>(a.head_dim))));
      total += weights_.back();
      sources_.push_back(seen_one.source);
      for (Index d = 0; d < a.head_dim; ++d) values_.push_back(static_cast<double>(seen_one.value[d]));
    }
    for (double& w : weights_) w /= total;
    log_sum[row * a.sizes.heads + head] = std::log(total);
  }

  template <class T>
  void attend(const AttentionCase<T>& a, Index sources, Index row, Index head) {
    const Index block = a.sizes.heads * a.head_dim;
    for (std::size_t j = 0; j < weights_.size(); ++j)
      for (Index d = 0; d < a.head_dim; ++d)
        out[row * sources * block + sources_[j] * block + head * a.head_dim + d] +=
            weights_[j] * values_[j * static_cast<std::size_t>(a.head_dim) + static_cast<std::size_t>(d)];
  }

  std::vector<double> weights_, values_;
  std::vector<Index> sources_;
};

/// Without a cache: what training and the first tokens of a prompt look like.
inline std::vector<AttentionSizes> whole_sequences() {
  return {{1, 1, 1, 1, 0},         {1, 1, 2, 1, 48},         {2, 9, 4, 2, 48},
          {3, 70, 8, 1, 5},        {1, 300, 3, 3, 0},        {2, 33, 7, 1, 48, true},
          {1, 700, 2, 1, 0, true}, {1, 700, 5, 1, 48, true}, {2, 130, 6, 2, 300}};
}

/// With a cache.
inline std::vector<AttentionSizes> cached_sequences() {
  return {{1, 1, 2, 1, 48, false, {0}},         {2, 1, 4, 2, 48, false, {5, 130}},
          {3, 1, 8, 1, 0, false, {600, 0, 31}}, {2, 17, 6, 2, 48, false, {100, 3}},
          {1, 70, 5, 1, 300, false, {290}},     {8, 1, 2, 2, 7, false, {1, 2, 3, 4, 5, 6, 7, 300}}};
}

}  // namespace parscale::test
