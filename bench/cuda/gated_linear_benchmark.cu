/// The gated MLP's linear layers with the activation fused into them, against products by cuBLASLt with the
/// activation as a pass of its own: checked at uneven shapes, and timed by turns, so that both run at the
/// same clock, at the shape of Qwen2-1.5B, P = 4, B = 4, S = 2048.
///
///   gated_linear_benchmark [check|time]
#include <array>
#include <functional>
#include <string>

#include <parscale/backend/cuda/device.hpp>
#include <parscale/backend/cuda/gated_linear.cuh>

#include "check_and_time.cuh"

using namespace parscale;
using namespace parscale::bench;

namespace {

using S = BFloat16;

/// Operands of both directions. Products of the weights have a variance of about one.
struct Operands {
  Index m, h, i;
  Memory<S> x, up_weight, down_weight, gate_up, product;

  Operands(Index rows, Index hidden, Index intermediate)
      : m(rows),
        h(hidden),
        i(intermediate),
        x(m * h),
        up_weight(2 * i * h),
        down_weight(h * i),
        gate_up(m * 2 * i + guard),
        product(m * i + guard) {
    fill_random(x, 1);
    fill_weight(up_weight, 2);
    fill_weight(down_weight, 3);
  }
  void fill_weight(Memory<S>& weight, unsigned seed) const {
    const float scale = 1 / std::sqrt(2 * static_cast<float>(h));
    fill_random(weight, seed);
    cuda::each(launch(), "scale", weight.count(),
               [=, w = weight.data()] __device__(Index k) { cuda::store(cuda::load(w + k) * scale, w + k); });
  }

  op::GatedLinear<S> forward() {
    return {.x = {x.data(), {m, h}},
            .weight = {up_weight.data(), {2 * i, h}},
            .gate_up = {gate_up.data(), {m, 2 * i}},
            .product = {product.data(), {m, i}}};
  }
  op::GatedLinearBackward<S> backward() {
    return {.d_out = {x.data(), {m, h}},
            .weight = {down_weight.data(), {h, i}},
            .gate_up = {gate_up.data(), {m, 2 * i}},
            .product = {product.data(), {m, i}}};
  }
};

// ---- the definition in float64, products rounded as the operations round them

__device__ double product_of(const S* a, const S* b, Index count, Index step) {
  double sum = 0;
  for (Index k = 0; k < count; ++k)
    sum += static_cast<double>(cuda::load(a + k)) * static_cast<double>(cuda::load(b + k * step));
  S rounded;
  cuda::store(static_cast<float>(sum), &rounded);
  return static_cast<double>(cuda::load(&rounded));
}

void reference(const op::GatedLinear<S>& a, Memory<double>& gate_up, Memory<double>& product) {
  const Index width = a.product.cols(), depth = a.x.cols();
  cuda::each(launch(), "reference", a.product.count(),
             [=, to = gate_up.data(), activated = product.data()] __device__(Index k) {
               const Index row = k / width, column = k % width;
               const S *x = a.x.data + row * depth, *w = a.weight.data + column * depth;
               const double g = product_of(x, w, depth, 1), u = product_of(x, w + width * depth, depth, 1);
               to[row * 2 * width + column] = g;
               to[row * 2 * width + width + column] = u;
               activated[k] = g / (1 + exp(-g)) * u;
             });
}

void reference(const op::GatedLinearBackward<S>& a, Memory<double>& gate_up, Memory<double>& product) {
  const Index width = a.product.cols(), depth = a.d_out.cols();
  cuda::each(launch(), "reference", a.product.count(),
             [=, to = gate_up.data(), activated = product.data()] __device__(Index k) {
               const Index row = k / width, column = k % width, place = row * 2 * width + column;
               const double g = static_cast<double>(cuda::load(a.gate_up.data + place)),
                            u = static_cast<double>(cuda::load(a.gate_up.data + place + width)),
                            d = product_of(a.d_out.data + row * depth, a.weight.data + column, depth, width),
                            s = 1 / (1 + exp(-g));
               to[place] = d * u * s * (1 + g * (1 - s));
               to[place + width] = d * g * s;
               activated[k] = g * s * u;
             });
}

// ---- checks

double error(const Memory<S>& got, const Memory<double>& want) {
  const std::vector<S> results = got.host();
  const std::vector<double> wanted = want.host();
  LargestError largest;
  for (std::size_t k = 0; k < wanted.size(); ++k) largest.add(static_cast<double>(results[k]), wanted[k]);
  return guard_untouched(std::vector<S>(results.begin(), results.end())) ? largest.relative() : INFINITY;
}

/// `run` twice over the same operands, other results poisoned.
template <class Operation, class Run>
bool right(const char* name, Operands& o, const Operation& a, bool reads_gate_up, Run run) {
  Memory<double> gate_up(o.m * 2 * o.i), product(o.m * o.i);
  std::vector<S> first[2];
  bool same = true;
  for (int round = 0; round < 2; ++round) {
    o.gate_up.poison();
    o.product.poison();
    if (reads_gate_up) {
      Memory<S> given(o.m * 2 * o.i);
      fill_random(given, 4);
      cuda::check(cudaMemcpy(o.gate_up.data(), given.data(), static_cast<std::size_t>(given.count()) * 2,
                             cudaMemcpyDeviceToDevice),
                  "copy");
    }
    if (round == 0) reference(a, gate_up, product);
    run(a);
    cuda::check(cudaDeviceSynchronize(), name);
    same = round == 0 || (same_bits(first[0], o.gate_up.host()) && same_bits(first[1], o.product.host()));
    first[0] = o.gate_up.host(), first[1] = o.product.host();
  }
  const double errors[] = {error(o.gate_up, gate_up), error(o.product, product)};
  const bool good = errors[0] < 5e-3 && errors[1] < 5e-3 && same;
  std::printf("%-9s %5lld x %5lld x %5lld: gate_up %.1e, product %.1e%s %s\n", name,
              static_cast<long long>(o.m), static_cast<long long>(o.h), static_cast<long long>(o.i),
              errors[0], errors[1], same ? "" : ", not the same twice", good ? "right" : "WRONG");
  return good;
}

bool check_shapes(const cuda::Launch& on) {
  bool good = true;
  for (const auto& [m, h, i] :
       {std::array<Index, 3>{1024, 1344, 256}, {1025, 1352, 264}, {1300, 1536, 776}, {9000, 1544, 1032}}) {
    Operands o(m, h, i);
    good &= right("forward", o, o.forward(), false, [&](const auto& a) { cuda::gated_linear_hopper(on, a); });
    good &= right("backward", o, o.backward(), true,
                  [&](const auto& a) { cuda::gated_linear_backward_hopper(on, a); });
  }
  return good;
}

// ---- times

struct Turn {
  std::string name;
  double operations;
  std::function<void()> run;
  std::vector<float> times = {};

  void print() {
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    std::printf("%-44s %8.3f ms %6.0f TFLOP/s\n", name.c_str(), static_cast<double>(*middle),
                operations / static_cast<double>(*middle) * 1e-9);
  }
};

/// Medians of the later two thirds: a GPU that has worked for a second has a lower clock.
void take_turns(std::vector<Turn> turns, Operands& o, int rounds) {
  const cuda::Stopwatch stopwatch(nullptr);
  for (int round = 0; round < rounds; ++round)
    for (Turn& turn : turns) {
      fill_random(o.gate_up, 4);  // what a backward left there is small
      const float ms = stopwatch.time(turn.run);
      if (round >= rounds / 3) turn.times.push_back(ms);
    }
  for (Turn& turn : turns) turn.print();
}

void time_directions(const cuda::Launch& on) {
  Operands o(4 * 4 * 2048, 1536, 8960);
  const auto f = o.forward();
  const auto b = o.backward();
  cuda::Products products(cuda::Device(0));
  const auto up = [&] { cuda::linear<S>(on, products, {.x = f.x, .weight = f.weight, .out = f.gate_up}); };
  const auto down = [&] {
    cuda::linear_input_gradient<S>(on, products, {.d_out = b.d_out, .weight = b.weight, .d_x = b.product});
  };
  const double operations = 2.0 * static_cast<double>(o.m * o.h * o.i);
  std::vector<Turn> turns{{"cuBLASLt, gate and up", 2 * operations, up},
                          {"  and the activation", 2 * operations,
                           [&] {
                             up();
                             cuda::gated_mlp<S>(on, {.gate_up = f.gate_up, .product = f.product});
                           }},
                          {"cuBLASLt, down's input gradient", operations, down},
                          {"  and the activation's backward", operations, [&] {
                             down();
                             cuda::gated_mlp_backward<S>(on, {.gate_up = b.gate_up, .product = b.product});
                           }}};
  for (const int group : {1, 2, 4, 8}) {
    auto plans = std::pair(cuda::hopper::gated_plan(f), cuda::hopper::gated_plan(b));
    plans.first.product.group = plans.second.product.group = group;
    const std::string text = ", groups of " + std::to_string(group);
    turns.push_back({"fused forward" + text, 2 * operations, [&on, plan = plans.first] {
                       cuda::hopper::launch_gated<cuda::hopper::GatedEpilogue>(on, "forward", plan);
                     }});
    turns.push_back({"fused backward" + text, operations, [&on, plan = plans.second] {
                       cuda::hopper::launch_gated<cuda::hopper::GatedBackwardEpilogue>(on, "backward", plan);
                     }});
  }
  take_turns(std::move(turns), o, 45);
}

}  // namespace

int main(int count, char** arguments) {
  return check_and_time(count, arguments, check_shapes, time_directions);
}
