/// Checkpoints of one safetensors file or many, reading and writing.
#pragma once

#include "sharded_writer.hpp"
#include "tensor_files.hpp"
