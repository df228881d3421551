#include "options_table.hpp"

#include <cmath>
#include <limits>

#include "numbers.hpp"

namespace parscale::program {
namespace {

ParscaleOptions& section_of(Options& options, const ParscaleOptions&) { return options.parscale; }
TrainingOptions& section_of(Options& options, const TrainingOptions&) { return options.training; }
const ParscaleOptions& section_of(const Options& options, const ParscaleOptions&) { return options.parscale; }
const TrainingOptions& section_of(const Options& options, const TrainingOptions&) { return options.training; }

/// A supported key: a member of one of the two sections.
template <class Section, class T>
Key key(const char* name, T Section::*member, const Type<T>& type, const char* help) {
  constexpr bool is_parscale = std::is_same_v<Section, ParscaleOptions>;
  Key made = make_key(
      is_parscale ? "parscale" : "training", name, type, help, Verdict::supported,
      [member](Options& options, T value) { section_of(options, Section{}).*member = std::move(value); });
  made.print = [member, print = type.print](const Options& options) {
    return print(section_of(options, Section{}).*member);
  };
  return made;
}

/// A number of steps, or as in Hugging Face's Trainer a share of max_steps when it is below 1. max_steps
/// stands before these keys in the table, so it is known here. With `least` 0, null is 0.
Key step_key(const char* name, Index TrainingOptions::*member, std::int64_t least, const char* help) {
  Key made = key(name, member, integer(least), help);
  made.type += ", or a share of max_steps";
  made.apply = [member, least, full_name = made.full_name()](Options& options, const YamlNode& node) {
    const Number written = read_number(node.text);
    Index& steps = options.training.*member;
    if (written.kind == Number::Kind::real && written.real > 0 && written.real < 1 && !node.quoted) {
      steps = static_cast<Index>(std::ceil(written.real * static_cast<double>(options.training.max_steps)));
    } else {
      steps = least == 0 && node.is_null() ? 0 : integer(least).read({full_name, node});
    }
  };
  return made;
}

std::vector<Key> parscale_keys() {
  using O = ParscaleOptions;
  const Type<CrossAttention> kind = choice<CrossAttention>(
      {{"expanded", CrossAttention::expanded}, {"sublayer", CrossAttention::sublayer}});
  return {
      key("parscale_n", &O::parscale_n, small_integer(1, 64), "replicas P; 1 is the plain model"),
      key("parscale_n_tokens", &O::parscale_n_tokens, integer(0, 1 << 20),
          "learned prefix tokens of a replica"),
      key("parscale_attn_smooth", &O::parscale_attn_smooth, number(0, 1),
          "share of an even mix in the aggregation"),
      key("enable_cross_attn", &O::enable_cross_attn, boolean(), "let the replicas attend to each other"),
      key("parscale_cross_attn_layers", &O::parscale_cross_attn_layers, or_null(list_of(integer(0, 65535))),
          "the layers in which they do; null: every layer"),
      key("parscale_cross_attn_kind", &O::parscale_cross_attn_kind, kind,
          "inside of self-attention, or as a sublayer of its own"),
      key("enable_replica_rope", &O::enable_replica_rope, boolean(), "sublayer: rotate by the replica index"),
      key("parscale_replica_embedding", &O::parscale_replica_embedding, boolean(),
          "add a learned vector to each replica's input"),
  };
}

std::vector<Key> model_and_data_keys() {
  using O = TrainingOptions;
  return {
      key("base_model", &O::base_model, text(), "folder, or a name in the Hugging Face cache"),
      key("tokenizer", &O::tokenizer, or_null(text()),
          "tokenizer.json or its folder; null: the base model's"),
      key("output_dir", &O::output_dir, text(), "where checkpoints and the final model go"),
      key("overwrite_output_dir", &O::overwrite_output_dir, boolean(),
          "start anew over what output_dir holds"),
      key("logging_dir", &O::logging_dir, or_null(text()),
          "where metrics.jsonl and loss.svg go; null: output_dir"),
      key("run_name", &O::run_name, or_null(text()), "title of the run in loss.svg"),
      key("dataset", &O::dataset, text(), "file, folder or glob (.txt, .jsonl, .gz, .zst), or pajama, stack"),
      key("text_field", &O::text_field, text(), "field of a .jsonl line that holds the text"),
      key("eval_dataset", &O::eval_dataset, or_null(text()), "text to evaluate on, given as dataset is"),
      key("eval_fraction", &O::eval_fraction, number(0, 0.5), "share of the dataset held out to evaluate on"),
      key("max_length", &O::max_length, integer(2, 1 << 24), "tokens of a sequence"),
      key("cut_documents", &O::cut_documents, boolean(), "attention stops between packed documents"),
  };
}

std::vector<Key> step_keys() {
  using O = TrainingOptions;
  constexpr std::int64_t any_seed = std::numeric_limits<std::int64_t>::max();
  const Type<ScheduleKind> schedulers =
      choice<ScheduleKind>({{"constant", ScheduleKind::constant},
                            {"constant_with_warmup", ScheduleKind::constant_with_warmup},
                            {"linear", ScheduleKind::linear},
                            {"cosine", ScheduleKind::cosine},
                            {"cosine_with_min_lr", ScheduleKind::cosine},
                            {"warmup_stable_decay", ScheduleKind::warmup_stable_decay}});
  constexpr double below_one = 0.9999999;
  return {
      key("max_steps", &O::max_steps, integer(1), "optimiser steps of the whole run"),
      key("per_device_train_batch_size", &O::per_device_train_batch_size, integer(1), "sequences at a time"),
      key("per_device_eval_batch_size", &O::per_device_eval_batch_size, integer(1),
          "sequences at a time when evaluating"),
      key("gradient_accumulation_steps", &O::gradient_accumulation_steps, integer(1),
          "batches that are added up for a step"),
      key("global_batch_size", &O::global_batch_size, or_null(integer(1)),
          "sequences of a step over all devices; decides the accumulation"),
      key("seed", &O::seed, integer(0, any_seed),
          "of new weights and, without data_seed, of the data's order"),
      key("data_seed", &O::data_seed, or_null(integer(0, any_seed)), "of the data's order; null: seed"),
      key("learning_rate", &O::learning_rate, number_above(0, 1e3), "the highest learning rate"),
      key("lr_scheduler_type", &O::lr_scheduler_type, schedulers, "how the learning rate runs"),
      key("warmup_steps", &O::warmup_steps, integer(0), "steps of linear warmup"),
      key("lr_decay_steps", &O::lr_decay_steps, integer(0),
          "steps of straight decay in warmup_stable_decay; 0: a tenth"),
      key("min_lr_ratio", &O::min_lr_ratio, number(0, 1), "lowest learning rate, as a share of the highest"),
      key("weight_decay", &O::weight_decay, number(0, 1e3), "AdamW; never on biases and norms"),
      key("adam_beta1", &O::adam_beta1, number(0, below_one), "AdamW"),
      key("adam_beta2", &O::adam_beta2, number(0, below_one), "AdamW"),
      key("adam_epsilon", &O::adam_epsilon, number_above(0, 1), "AdamW"),
      key("max_grad_norm", &O::max_grad_norm, number(0), "gradients are clipped to this norm; 0: never"),
      key("trainable", &O::trainable, names(), "train only parameters with these words in their name"),
  };
}

std::vector<Key> watching_and_saving_keys() {
  using O = TrainingOptions;
  const Type<Strategy> strategy = choice<Strategy>({{"no", Strategy::no}, {"steps", Strategy::steps}});
  return {
      step_key("logging_steps", &O::logging_steps, 1, "steps between two lines of loss"),
      key("logging_first_step", &O::logging_first_step, boolean(), "a line for the first step, too"),
      key("disable_tqdm", &O::disable_tqdm, boolean(), "no live bar on a terminal"),
      key("eval_strategy", &O::eval_strategy, strategy, "whether to evaluate while training"),
      step_key("eval_steps", &O::eval_steps, 0, "steps between two evaluations; 0: logging_steps"),
      key("eval_on_start", &O::eval_on_start, boolean(), "evaluate before the first step, too"),
      key("max_eval_samples", &O::max_eval_samples, or_null(integer(1)),
          "sequences of an evaluation; null: all"),
      key("save_strategy", &O::save_strategy, strategy, "whether to keep checkpoints while training"),
      step_key("save_steps", &O::save_steps, 1, "steps between two checkpoints"),
      key("save_total_limit", &O::save_total_limit, or_null(integer(1)), "checkpoints to keep; null: all"),
      key("resume_every_minutes", &O::resume_every_minutes, number(0, 1e6),
          "minutes between two rolling checkpoints; 0: none"),
      key("resume_from_checkpoint", &O::resume_from_checkpoint, resume_point(),
          "go on from the newest checkpoint of output_dir, or from this one"),
  };
}

std::vector<Key> machine_keys() {
  using O = TrainingOptions;
  const auto devices =
      choice<Device>({{"auto", Device::automatic}, {"cpu", Device::cpu}, {"cuda", Device::cuda}});
  const auto precisions = choice<Precision>({{"auto", Precision::automatic},
                                             {"float32", Precision::float32},
                                             {"float64", Precision::float64},
                                             {"bfloat16", Precision::bfloat16},
                                             {"tf32", Precision::tf32}});
  const auto recompute = choice<Recompute>({{"auto", Recompute::automatic},
                                            {"none", Recompute::none},
                                            {"pointwise", Recompute::pointwise},
                                            {"layer", Recompute::layer}});
  const auto connectors = choice<Connector>({{"auto", Connector::automatic},
                                             {"tcp", Connector::tcp},
                                             {"mpi", Connector::mpi},
                                             {"nccl", Connector::nccl}});
  const auto sharding = choice<Sharding>({{"full", Sharding::full},
                                          {"optimizer", Sharding::optimizer},
                                          {"none", Sharding::none},
                                          {"hybrid", Sharding::hybrid},
                                          {"auto", Sharding::full}});
  const auto reductions =
      choice<Precision>({{"float32", Precision::float32}, {"bfloat16", Precision::bfloat16}});
  return {
      key("device", &O::device, devices, "where to compute; auto: a GPU if there is one"),
      key("dtype", &O::dtype, precisions,
          "of the computation; auto: bfloat16 on a GPU, else float32; bfloat16 and tf32 need a GPU"),
      key("threads", &O::threads, integer(0, 4096), "threads on the CPU; 0: one a core"),
      key("recompute", &O::recompute, recompute,
          "what the backward computes again to need less memory: norms (pointwise), whole layers; auto: what "
          "fits a GPU"),
      key("sharding", &O::sharding, sharding,
          "what processes divide: weights, gradients and the optimiser (full), the same inside each host "
          "(hybrid), the optimiser alone, nothing"),
      key("sharding_group_size", &O::sharding_group_size, integer(0, 1 << 20),
          "processes that share one copy when sharding=hybrid; 0: those of a host"),
      key("gradient_reduction_dtype", &O::gradient_reduction_dtype, reductions,
          "of gradients while processes add them; bfloat16 halves what travels"),
      key("deterministic", &O::deterministic, boolean(),
          "the same bits from any number of processes; sequences one at a time"),
      key("communicator", &O::communicator, connectors,
          "what connects processes; auto: NCCL on GPUs, on the CPU MPI under mpirun, else TCP"),
      key("ddp_timeout", &O::ddp_timeout, integer(1, 1 << 24),
          "seconds that processes wait for one that hangs"),
      key("plan_world", &O::plan_world, or_null(integer(1, 1 << 20)),
          "do not train: print what each of so many processes would need, with or without a GPU here"),
      key("rank_logs", &O::rank_logs, boolean(), "each process writes output_dir/logs/rank-N.log, too"),
  };
}

}  // namespace

const std::vector<Key>& option_keys() {
  static const std::vector<Key> keys = [] {
    std::vector<Key> all;
    for (auto& part : {parscale_keys(), model_and_data_keys(), step_keys(), watching_and_saving_keys(),
                       machine_keys(), huggingface_keys()})
      all.insert(all.end(), part.begin(), part.end());
    return all;
  }();
  return keys;
}

const Key* find_key(const std::string& full_name) {
  for (const Key& key : option_keys())
    if (key.full_name() == full_name) return &key;
  return nullptr;
}

bool outweighs(const Options& options, std::string_view key, std::string_view other) {
  const auto rank = [&](std::string_view name) {
    const auto found = options.given.find(name);
    return found == options.given.end() ? 0 : found->second.rank;
  };
  return rank(key) > rank(other);
}

}  // namespace parscale::program
