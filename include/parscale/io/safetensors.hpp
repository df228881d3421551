/// Safetensors files, reading and writing.
#pragma once

#include "safetensors_reader.hpp"
#include "safetensors_writer.hpp"
