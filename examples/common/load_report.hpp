/// What loading a checkpoint filled and left out, for people.
#pragma once

#include <parscale/io/huggingface.hpp>
#include <string>
#include <vector>

namespace parscale::program {

/// A line for each kind of tensor; the layers of a model are one: "model.layers.0...27.self_attn.prefix_k".
std::vector<std::string> filled_lines(const LoadReport& report);
std::vector<std::string> unused_lines(const LoadReport& report);

/// Notes about what was initialised, warnings about what was not used.
void print_load_report(const LoadReport& report);

}  // namespace parscale::program
