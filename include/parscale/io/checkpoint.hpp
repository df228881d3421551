/// Crash-safe checkpoints, one include. A checkpoint is a directory of files and a manifest with their
/// checksums; it exists as a whole or not at all.
///
///     save_checkpoint({.parent = out, .name = {.step = 20}, .bytes = bytes_of(tensors), .keep = 2},
///                     [&](CheckpointWriter& writer) { write_training_state(writer, tensors, state); });
///
///     if (auto latest = latest_good_checkpoint(out)) {
///       for (const auto& damaged : latest->skipped) warn(damaged.text());
///       state = read_training_state(latest->checkpoint.path, sinks);
///     }
///
/// durable_directory  directories that appear, are replaced and vanish in one step
/// directory_lock     two runs never write into one directory
/// checkpoint_manifest, _verify, _find       what a checkpoint must hold; whether it does; which is newest
/// checkpoint_writer, _retention, _save      writing one; which ones stay; both together
/// checkpoint_together                       the same from many processes
/// checkpoint_tensors, training_state        what a training run puts inside
#pragma once

#include "checkpoint_find.hpp"
#include "checkpoint_retention.hpp"
#include "checkpoint_save.hpp"
#include "checkpoint_together.hpp"
#include "checkpoint_verify.hpp"
#include "checkpoint_writer.hpp"
#include "training_state.hpp"
