/// Hugging Face's TrainingArguments, field by field: what is not supported under its own name is translated
/// into keys that are, accepted with a note because it changes nothing here, or refused with the reason.

#include <cmath>
#include <parscale/core/error.hpp>

#include "options_table.hpp"

namespace parscale::program {
namespace {

using Optional = std::optional<std::string>;

/// Sets what `key` stands for, unless the key it is translated into was given with at least its weight.
template <class Set>
void translate(Options& options, const std::string& key, const std::string& into, Set set) {
  if (outweighs(options, "training." + key, "training." + into)) {
    set(options.training);
  } else {
    options.notes.emplace_back("training." + key + " has no effect: training." + into + " decides");
  }
}

[[noreturn]] void refuse(const Options& options, const std::string& key, const std::string& reason,
                         const std::string& remedy) {
  throw ConfigurationError({.what = "training." + key + " is not supported with this value",
                            .where = options.given.at("training." + key).where,
                            .why = reason,
                            .remedy = remedy});
}

/// Another way to set supported keys: `act(options, value)`.
template <class T, class Act>
Key mapped(const char* name, const Type<T>& type, const char* help, Act act) {
  return make_key("training", name, type, help, Verdict::mapped, act);
}

/// Accepted; a note says why it changes nothing, unless it stands at one of its `usual` values.
template <class T>
Key no_effect(const char* name, const Type<T>& type, std::vector<T> usual, const char* reason) {
  return make_key("training", name, type, reason, Verdict::no_effect, [=](Options& options, const T& value) {
    for (const T& harmless : usual)
      if (value == harmless) return;
    options.notes.emplace_back(std::string("training.") + name + " has no effect here: " + reason);
  });
}

/// Only the `harmless` values are accepted.
template <class T>
Key refused(const char* name, const Type<T>& type, std::vector<T> harmless, const char* reason,
            const char* remedy) {
  return make_key("training", name, type, reason, Verdict::refused, [=](Options& options, const T& value) {
    for (const T& fine : harmless)
      if (value == fine) return;
    refuse(options, name, reason, remedy);
  });
}

void set_optimizer(Options& options, const std::string& name) {
  const bool adamw = name == "adamw_torch" || name == "adamw_torch_fused" || name == "adamw_hf" ||
                     name == "adamw_apex_fused" || name == "adamw_torch_xla" ||
                     name == "adamw_torch_npu_fused";
  if (!adamw)
    refuse(options, "optim", "'" + name + "': the only optimiser here is AdamW",
           "leave it out, or say adamw_torch");
  if (name != "adamw_torch")
    options.notes.emplace_back("training.optim=" + name + " is this program's own AdamW");
}

void set_fsdp(Options& options, const io::Json& value) {
  std::string words;
  if (value.is_boolean() && value.get<bool>()) words = "full_shard";
  if (value.is_string()) words = value.get<std::string>();
  if (value.is_array())
    for (const io::Json& item : value)
      words += " " + (item.is_string() ? item.get<std::string>() : item.dump());
  if (words.find("offload") != words.npos)
    refuse(options, "fsdp", "weights are not kept in host memory",
           "remove 'offload'; recompute=layer needs less memory");
  if (words.empty()) return;
  const auto has = [&](const char* word) { return words.find(word) != words.npos; };
  const Sharding sharding = has("no_shard") || !has("shard") ? Sharding::none
                            : has("hybrid_shard")            ? Sharding::hybrid
                            : has("shard_grad_op")           ? Sharding::optimizer
                                                             : Sharding::full;
  translate(options, "fsdp", "sharding", [&](TrainingOptions& t) { t.sharding = sharding; });
}

/// The keyword arguments of Hugging Face's schedules that have a key here.
void set_scheduler_arguments(Options& options, const io::Json& arguments) {
  if (arguments.is_null()) return;
  const std::string key = "lr_scheduler_kwargs";
  if (!arguments.is_object()) refuse(options, key, "it must be a mapping", "write it as {min_lr: 1e-5}");
  for (const auto& [name, value] : arguments.members()) {
    const bool plain_default = (name == "warmup_type" && value == "linear") ||
                               (name == "decay_type" && value == "linear") ||
                               (name == "num_cycles" && value == 0.5);
    if (plain_default) continue;
    if (!value.is_number() || value.get<double>() < 0)
      refuse(options, key, name + " is " + value.dump(), "leave it out");
    const double number = value.get<double>();
    if (name == "min_lr" || name == "min_lr_rate" || name == "min_lr_ratio") {
      const double ratio = name == "min_lr" ? number / options.training.learning_rate : number;
      if (ratio > 1) refuse(options, key, name + " lies above the learning rate", "lower it");
      translate(options, key, "min_lr_ratio", [&](TrainingOptions& t) { t.min_lr_ratio = ratio; });
    } else if (name == "num_decay_steps") {
      translate(options, key, "lr_decay_steps",
                [&](TrainingOptions& t) { t.lr_decay_steps = static_cast<Index>(number); });
    } else {
      refuse(options, key, "'" + name + "' is not known here",
             "known are min_lr, min_lr_rate, min_lr_ratio, num_decay_steps");
    }
  }
}

void set_epochs(Options& options, const io::Json&) {
  if (!options.is_given("training.max_steps"))
    refuse(options, "num_train_epochs",
           "text is tokenised only as far as the steps need, so nobody has counted an epoch",
           "set training.max_steps");
  options.notes.emplace_back("training.num_train_epochs has no effect: training.max_steps decides");
}

void set_warmup_ratio(Options& options, double ratio) {
  const double steps = std::ceil(ratio * static_cast<double>(options.training.max_steps));
  translate(options, "warmup_ratio", "warmup_steps",
            [&](TrainingOptions& t) { t.warmup_steps = static_cast<Index>(steps); });
}

/// A note instead of silence when somebody expects a service to be told about the run.
void set_report_to(Options& options, const io::Json& value) {
  const bool nobody =
      value.is_null() || value == "none" || value == io::Json::array() || value == io::Json::array({"none"});
  if (!nobody)
    options.notes.emplace_back(
        "training.report_to has no effect here: metrics.jsonl and loss.svg are always written, and nothing "
        "else");
}

std::vector<Key> translated() {
  const auto on_cpu = [](const char* key) {
    return [key](Options& options, bool on) {
      if (on) translate(options, key, "device", [](TrainingOptions& t) { t.device = Device::cpu; });
    };
  };
  return {
      mapped("bf16", boolean(), "dtype=bfloat16 on a GPU",
             [](Options& options, bool on) {
               if (on)
                 translate(options, "bf16", "dtype",
                           [](TrainingOptions& t) { t.dtype = Precision::bfloat16; });
             }),
      mapped("gradient_checkpointing", boolean(), "recompute=layer",
             [](Options& options, bool on) {
               translate(options, "gradient_checkpointing", "recompute",
                         [on](TrainingOptions& t) { t.recompute = on ? Recompute::layer : Recompute::none; });
             }),
      mapped("fsdp", anything(), "sharding=full", set_fsdp),
      mapped("use_cpu", boolean(), "device=cpu", on_cpu("use_cpu")),
      mapped("no_cuda", boolean(), "device=cpu", on_cpu("no_cuda")),
      mapped("warmup_ratio", number(0, 1), "warmup_steps, as a share of max_steps", set_warmup_ratio),
      mapped("lr_scheduler_kwargs", anything(), "min_lr_ratio, lr_decay_steps", set_scheduler_arguments),
      mapped("num_train_epochs", anything(), "nothing: max_steps decides, and is needed", set_epochs),
      mapped("optim", text(), "nothing: AdamW", set_optimizer),
      mapped("report_to", anything(), "nothing: metrics.jsonl and loss.svg are always written",
             set_report_to),
  };
}

std::vector<Key> ignored_about_the_machine() {
  const Type<io::Json> any = anything();
  const io::Json none = nullptr;
  const char* own_loader = "text is read by one thread of the program itself";
  const char* own_kernels = "there is no Python to compile; kernels are compiled with the program";
  const char* own_ranks = "processes find each other through torchrun, mpirun or srun";
  const char* own_shards = "every layer is sharded alike, over flat ranges of its weights";
  return {
      no_effect("dataloader_num_workers", integer(0), {0}, own_loader),
      no_effect("dataloader_prefetch_factor", or_null(integer(0)), {std::nullopt}, own_loader),
      no_effect("dataloader_pin_memory", boolean(), {true}, own_loader),
      no_effect("dataloader_persistent_workers", boolean(), {false}, own_loader),
      no_effect("dataloader_drop_last", boolean(), {false}, "text is packed, so every batch is full"),
      no_effect("accelerator_config", any, {none}, own_loader),
      no_effect("remove_unused_columns", boolean(), {true}, "only training.text_field is read"),
      no_effect("torch_compile", boolean(), {false}, own_kernels),
      no_effect("torch_compile_backend", or_null(text()), {std::nullopt}, own_kernels),
      no_effect("torch_compile_mode", or_null(text()), {std::nullopt}, own_kernels),
      no_effect("torchdynamo", or_null(text()), {std::nullopt}, own_kernels),
      no_effect("jit_mode_eval", boolean(), {false}, own_kernels),
      no_effect("use_ipex", boolean(), {false}, own_kernels),
      no_effect("use_liger_kernel", boolean(), {false}, own_kernels),
      no_effect("torch_empty_cache_steps", or_null(integer(1)), {std::nullopt},
                "memory is planned before the run"),
      no_effect("auto_find_batch_size", boolean(), {false},
                "memory is planned, and the plan printed, before the run"),
      no_effect("skip_memory_metrics", boolean(), {true}, "peak memory is always reported"),
      no_effect("tf32", or_null(boolean()), {std::nullopt}, "products are computed in training.dtype"),
      no_effect("fp16_opt_level", text(), {"O1"}, "there is no float16 training"),
      no_effect("fp16_backend", text(), {"auto"}, "there is no float16 training"),
      no_effect("half_precision_backend", text(), {"auto"}, "there is one implementation of bfloat16"),
      no_effect("fp16_full_eval", boolean(), {false}, "evaluation computes in training.dtype"),
      no_effect("bf16_full_eval", boolean(), {false}, "evaluation computes in training.dtype"),
      no_effect("gradient_checkpointing_kwargs", any, {none}, "layers are recomputed in one way only"),
      no_effect("fsdp_config", any, {none}, own_shards),
      no_effect("fsdp_min_num_params", integer(0), {0}, own_shards),
      no_effect("fsdp_transformer_layer_cls_to_wrap", or_null(text()), {std::nullopt}, own_shards),
      no_effect("local_rank", integer(-1), {-1}, own_ranks),
      no_effect("_n_gpu", integer(-1), {-1}, own_ranks),
      no_effect("ddp_backend", or_null(text()), {std::nullopt}, own_ranks),
      no_effect("ddp_find_unused_parameters", or_null(boolean()), {std::nullopt}, own_ranks),
      no_effect("ddp_bucket_cap_mb", or_null(integer(0)), {std::nullopt}, own_ranks),
      no_effect("ddp_broadcast_buffers", or_null(boolean()), {std::nullopt}, own_ranks),
      no_effect("tpu_num_cores", or_null(integer(0)), {std::nullopt}, "there is no TPU support"),
      no_effect("tpu_metrics_debug", boolean(), {false}, "there is no TPU support"),
      no_effect("ray_scope", or_null(text()), {"last"},
                "there is no hyperparameter search; see parscale-sweep"),
      no_effect("full_determinism", boolean(), {false}, "runs repeat bit for bit in any case"),
  };
}

std::vector<Key> ignored_about_the_run() {
  const Type<io::Json> any = anything();
  const io::Json none = nullptr;
  const char* by_strategy = "training.eval_strategy decides about evaluation";
  const char* one_metric = "an evaluation is the mean loss of held-out text";
  const char* no_hub = "nothing is uploaded";
  const char* one_log = "the program prints one line a logging step";
  return {
      no_effect("do_train", boolean(), {false, true}, "this program trains"),
      no_effect("do_eval", boolean(), {false}, by_strategy),
      no_effect("do_predict", boolean(), {false}, "use parscale-evaluate"),
      no_effect("eval_delay", any, {none, 0}, by_strategy),
      no_effect("prediction_loss_only", boolean(), {false}, one_metric),
      no_effect("eval_accumulation_steps", or_null(integer(1)), {std::nullopt}, one_metric),
      no_effect("batch_eval_metrics", boolean(), {false}, one_metric),
      no_effect("eval_do_concat_batches", boolean(), {true}, one_metric),
      no_effect("eval_use_gather_object", boolean(), {false}, one_metric),
      no_effect("include_inputs_for_metrics", boolean(), {false}, one_metric),
      no_effect("include_for_metrics", any, {none, io::Json::array()}, one_metric),
      no_effect("metric_for_best_model", or_null(text()), {std::nullopt}, one_metric),
      no_effect("greater_is_better", or_null(boolean()), {std::nullopt}, one_metric),
      no_effect("use_legacy_prediction_loop", boolean(), {false}, one_metric),
      no_effect("label_names", any, {none}, "the targets are the next tokens"),
      no_effect("group_by_length", boolean(), {false}, "text is packed, so every sequence is equally long"),
      no_effect("length_column_name", or_null(text()), {"length"}, "text is packed"),
      no_effect("average_tokens_across_devices", boolean(), {false, true},
                "the loss is always the mean over the global batch"),
      no_effect("log_level", or_null(text()), {"passive"}, one_log),
      no_effect("log_level_replica", or_null(text()), {"warning"}, one_log),
      no_effect("log_on_each_node", boolean(), {true}, one_log),
      no_effect("logging_strategy", text(), {"steps"}, "training.logging_steps decides"),
      no_effect("logging_nan_inf_filter", boolean(), {true}, "a loss that is not finite ends the run"),
      no_effect("include_tokens_per_second", boolean(), {false, true},
                "tokens per second are always reported"),
      no_effect("include_num_input_tokens_seen", boolean(), {false, true}, "tokens are always counted"),
      no_effect("debug", any, {none, ""}, "a loss or gradient that is not finite ends the run by itself"),
      no_effect("save_on_each_node", boolean(), {false}, "checkpoints need a folder that all nodes share"),
      no_effect("save_only_model", boolean(), {false}, "a checkpoint always holds all that resuming needs"),
      no_effect("restore_callback_states_from_checkpoint", boolean(), {false}, "there are no callbacks"),
      no_effect("hub_model_id", or_null(text()), {std::nullopt}, no_hub),
      no_effect("hub_strategy", text(), {"every_save"}, no_hub),
      no_effect("hub_token", or_null(text()), {std::nullopt}, no_hub),
      no_effect("hub_private_repo", or_null(boolean()), {std::nullopt}, no_hub),
      no_effect("hub_always_push", boolean(), {false}, no_hub),
      no_effect("push_to_hub_model_id", or_null(text()), {std::nullopt}, no_hub),
      no_effect("push_to_hub_organization", or_null(text()), {std::nullopt}, no_hub),
      no_effect("push_to_hub_token", or_null(text()), {std::nullopt}, no_hub),
  };
}

std::vector<Key> refusals() {
  const Type<io::Json> any = anything();
  const io::Json none = nullptr;
  const char* one_device = "it would split the model in another way than sharding does";
  return {
      refused("deepspeed", any, {none, false}, "there is no DeepSpeed here", "use training.sharding=full"),
      refused("fp16", boolean(), {false}, "float16 would need loss scaling, and bfloat16 does not",
              "use training.bf16=true on a GPU, float32 on a CPU"),
      refused("push_to_hub", boolean(), {false}, "this program does not touch the network",
              "upload the output folder with: huggingface-cli upload"),
      refused("load_best_model_at_end", boolean(), {false}, "the last state of a run is its result",
              "set training.save_total_limit=null and choose a checkpoint by metrics.jsonl"),
      refused("label_smoothing_factor", number(0), {0.0}, "the loss is plain cross-entropy", "leave it out"),
      refused("neftune_noise_alpha", or_null(number(0)), {std::nullopt, 0.0}, "embeddings get no noise",
              "leave it out"),
      refused("adafactor", boolean(), {false}, "the only optimiser here is AdamW", "leave it out"),
      refused("optim_args", or_null(text()), {std::nullopt}, "AdamW has keys of its own",
              "use training.adam_beta1, ..."),
      refused("optim_target_modules", any, {none}, "AdamW treats all weights alike",
              "training.trainable chooses what is trained"),
      refused("ignore_data_skip", boolean(), {false}, "a resumed run goes on with the text where it stopped",
              "leave it out"),
      refused("save_safetensors", boolean(), {true}, "weights are only written as safetensors",
              "leave it out"),
      refused("past_index", integer(-1), {-1}, "no state is carried from one batch to the next",
              "leave it out"),
      refused("tp_size", or_null(integer(0)), {std::nullopt, 0, 1}, one_device, "use training.sharding=full"),
      refused("mp_parameters", text(), {}, one_device, "use training.sharding=full"),
      refused("per_gpu_train_batch_size", or_null(integer(1)), {std::nullopt}, "it has been renamed",
              "use training.per_device_train_batch_size"),
      refused("per_gpu_eval_batch_size", or_null(integer(1)), {std::nullopt}, "it has been renamed",
              "use training.per_device_eval_batch_size"),
      refused("use_mps_device", boolean(), {false}, "Apple's GPUs are not supported",
              "use training.device=cpu"),
  };
}

}  // namespace

std::vector<Key> huggingface_keys() {
  std::vector<Key> all;
  for (auto& part : {translated(), ignored_about_the_machine(), ignored_about_the_run(), refusals()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace parscale::program
