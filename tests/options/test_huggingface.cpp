/// Hugging Face's TrainingArguments: every field has its verdict.
#include <common/options_table.hpp>

#include "given.hpp"

using namespace parscale;
using namespace parscale::program;

namespace {

/// The fields of transformers 4.51.3, in their order there.
const char* const fields[] = {"output_dir",
                              "overwrite_output_dir",
                              "do_train",
                              "do_eval",
                              "do_predict",
                              "eval_strategy",
                              "prediction_loss_only",
                              "per_device_train_batch_size",
                              "per_device_eval_batch_size",
                              "per_gpu_train_batch_size",
                              "per_gpu_eval_batch_size",
                              "gradient_accumulation_steps",
                              "eval_accumulation_steps",
                              "eval_delay",
                              "torch_empty_cache_steps",
                              "learning_rate",
                              "weight_decay",
                              "adam_beta1",
                              "adam_beta2",
                              "adam_epsilon",
                              "max_grad_norm",
                              "num_train_epochs",
                              "max_steps",
                              "lr_scheduler_type",
                              "lr_scheduler_kwargs",
                              "warmup_ratio",
                              "warmup_steps",
                              "log_level",
                              "log_level_replica",
                              "log_on_each_node",
                              "logging_dir",
                              "logging_strategy",
                              "logging_first_step",
                              "logging_steps",
                              "logging_nan_inf_filter",
                              "save_strategy",
                              "save_steps",
                              "save_total_limit",
                              "save_safetensors",
                              "save_on_each_node",
                              "save_only_model",
                              "restore_callback_states_from_checkpoint",
                              "no_cuda",
                              "use_cpu",
                              "use_mps_device",
                              "seed",
                              "data_seed",
                              "jit_mode_eval",
                              "use_ipex",
                              "bf16",
                              "fp16",
                              "fp16_opt_level",
                              "half_precision_backend",
                              "bf16_full_eval",
                              "fp16_full_eval",
                              "tf32",
                              "local_rank",
                              "ddp_backend",
                              "tpu_num_cores",
                              "tpu_metrics_debug",
                              "debug",
                              "dataloader_drop_last",
                              "eval_steps",
                              "dataloader_num_workers",
                              "dataloader_prefetch_factor",
                              "past_index",
                              "run_name",
                              "disable_tqdm",
                              "remove_unused_columns",
                              "label_names",
                              "load_best_model_at_end",
                              "metric_for_best_model",
                              "greater_is_better",
                              "ignore_data_skip",
                              "fsdp",
                              "fsdp_min_num_params",
                              "fsdp_config",
                              "tp_size",
                              "fsdp_transformer_layer_cls_to_wrap",
                              "accelerator_config",
                              "deepspeed",
                              "label_smoothing_factor",
                              "optim",
                              "optim_args",
                              "adafactor",
                              "group_by_length",
                              "length_column_name",
                              "report_to",
                              "ddp_find_unused_parameters",
                              "ddp_bucket_cap_mb",
                              "ddp_broadcast_buffers",
                              "dataloader_pin_memory",
                              "dataloader_persistent_workers",
                              "skip_memory_metrics",
                              "use_legacy_prediction_loop",
                              "push_to_hub",
                              "resume_from_checkpoint",
                              "hub_model_id",
                              "hub_strategy",
                              "hub_token",
                              "hub_private_repo",
                              "hub_always_push",
                              "gradient_checkpointing",
                              "gradient_checkpointing_kwargs",
                              "include_inputs_for_metrics",
                              "include_for_metrics",
                              "eval_do_concat_batches",
                              "fp16_backend",
                              "push_to_hub_model_id",
                              "push_to_hub_organization",
                              "push_to_hub_token",
                              "_n_gpu",
                              "mp_parameters",
                              "auto_find_batch_size",
                              "full_determinism",
                              "torchdynamo",
                              "ray_scope",
                              "ddp_timeout",
                              "torch_compile",
                              "torch_compile_backend",
                              "torch_compile_mode",
                              "include_tokens_per_second",
                              "include_num_input_tokens_seen",
                              "neftune_noise_alpha",
                              "optim_target_modules",
                              "batch_eval_metrics",
                              "eval_on_start",
                              "use_liger_kernel",
                              "eval_use_gather_object",
                              "average_tokens_across_devices"};

}  // namespace

TEST_CASE("Every field of TrainingArguments has a verdict") {
  CHECK(std::size(fields) == 130);
  for (const char* field : fields) {
    INFO(field);
    CHECK(find_key(std::string("training.") + field) != nullptr);
  }
}

TEST_CASE("No key stands twice in the table") {
  for (const Key& key : option_keys()) {
    INFO(key.full_name());
    CHECK(find_key(key.full_name()) == &key);
    CHECK_FALSE(key.help.empty());
  }
}

TEST_CASE("Only supported keys are printed, and all of them") {
  const std::string text = to_yaml(from_words({}));
  for (const Key& key : option_keys()) {
    INFO(key.full_name());
    CHECK(contains(text, "  " + key.name + ": ") == (key.verdict == Verdict::supported));
  }
}

TEST_CASE("What changes nothing here is accepted with the reason") {
  CHECK(contains(from_words({"training.dataloader_num_workers=8"}).notes,
                 "dataloader_num_workers has no effect here"));
  CHECK(contains(from_words({"training.torch_compile=True"}).notes, "compiled with the program"));
  CHECK(contains(from_words({"training.report_to=wandb"}).notes, "metrics.jsonl"));
  CHECK(contains(from_words({"training.fsdp_config={min_num_params: 1}"}).notes, "fsdp_config"));
}

TEST_CASE("At their usual values such keys go without a note") {
  CHECK(from_words({"training.dataloader_num_workers=0", "training.dataloader_pin_memory=True",
                    "training.report_to=none", "training.report_to=[]", "training.optim=adamw_torch",
                    "training.hub_token=None", "training.do_train=True", "training.deepspeed=None",
                    "training.fp16=False", "training.push_to_hub=False", "training.fsdp=''",
                    "training.label_smoothing_factor=0.0", "training.lr_scheduler_kwargs={}"})
            .notes.empty());
}

TEST_CASE("Even a key without effect must have a value of its type") {
  CHECK(contains(refusal_of_words({"training.dataloader_num_workers=many"}),
                 "training.dataloader_num_workers"));
}

TEST_CASE("A token is not repeated in a note") {
  for (const std::string& note : from_words({"training.hub_token=hf_secret"}).notes)
    CHECK_FALSE(contains(note, "secret"));
}

TEST_CASE("What would change the result is refused with the reason and a way out") {
  CHECK(contains(refusal_of_words({"training.deepspeed=zero3.json"}), "training.sharding=full"));
  CHECK(contains(refusal_of_words({"training.fp16=True"}), "loss scaling"));
  CHECK(contains(refusal_of_words({"training.push_to_hub=True"}), "does not touch the network"));
  CHECK(contains(refusal_of_words({"training.label_smoothing_factor=0.1"}), "plain cross-entropy"));
  CHECK(contains(refusal_of_words({"training.optim=lion_32bit"}), "AdamW"));
  CHECK(contains(refusal_of_words({"training.load_best_model_at_end=True"}), "last state"));
  CHECK(contains(refusal_of_words({"training.fsdp=full_shard offload"}), "host memory"));
  CHECK(contains(refusal_of_yaml("training:\n  fp16: true\n"), "line 2, column 9"));
}

TEST_CASE("A refused value of a file may be taken back on the command line") {
  CHECK(from_yaml("training:\n  fp16: true\n", {"training.fp16=False"}).notes.empty());
}

TEST_CASE("Epochs need max_steps, which decides then") {
  CHECK(contains(refusal_of_words({"training.num_train_epochs=3"}), "set training.max_steps"));
  CHECK(contains(from_words({"training.num_train_epochs=3.0", "training.max_steps=5000"}).notes,
                 "max_steps decides"));
}

TEST_CASE("gradient_checkpointing becomes recompute") {
  CHECK(from_words({"training.gradient_checkpointing=True"}).training.recompute == Recompute::layer);
  CHECK(from_words({"training.gradient_checkpointing=False"}).training.recompute == Recompute::none);
  const Options o = from_words({"training.gradient_checkpointing=True", "training.recompute=none"});
  CHECK(o.training.recompute == Recompute::none);
  CHECK(contains(o.notes, "training.recompute decides"));
}

TEST_CASE("fsdp becomes sharding") {
  CHECK(from_words({"training.fsdp=full_shard auto_wrap"}).training.sharding == Sharding::full);
  CHECK(from_words({"training.fsdp=['shard_grad_op', 'auto_wrap']"}).training.sharding ==
        Sharding::optimizer);
  CHECK(from_words({"training.fsdp=True"}).training.sharding == Sharding::full);
  CHECK(from_words({"training.fsdp=no_shard"}).training.sharding == Sharding::none);
  CHECK(from_words({"training.fsdp=hybrid_shard auto_wrap"}).training.sharding == Sharding::hybrid);
}

TEST_CASE("warmup_ratio becomes warmup_steps unless these were given") {
  CHECK(from_words({"training.warmup_ratio=0.1", "training.max_steps=1001"}).training.warmup_steps == 101);
  const Options o = from_words({"training.warmup_ratio=0.1", "training.warmup_steps=7"});
  CHECK(o.training.warmup_steps == 7);
  CHECK(contains(o.notes, "warmup_steps decides"));
}

TEST_CASE("The arguments of schedules are understood") {
  const Words cosine{"training.lr_scheduler_type=cosine_with_min_lr", "training.learning_rate=1e-3",
                     "training.lr_scheduler_kwargs={'min_lr': 1e-4}"};
  CHECK(from_words(cosine).training.min_lr_ratio == 0.1);
  CHECK(from_words(cosine).training.lr_scheduler_type == ScheduleKind::cosine);
  const Words wsd{
      "training.lr_scheduler_type=warmup_stable_decay",
      "training.lr_scheduler_kwargs={'num_decay_steps': 50, 'min_lr_ratio': 0.2, 'decay_type': 'linear'}"};
  CHECK(from_words(wsd).training.lr_decay_steps == 50);
  CHECK(from_words(wsd).training.min_lr_ratio == 0.2);
  CHECK(contains(refusal_of_words({"training.lr_scheduler_kwargs={'decay_type': 'cosine'}"}), "decay_type"));
  CHECK(contains(refusal_of_words({"training.lr_scheduler_kwargs={'power': 2}"}), "'power' is not known"));
  CHECK(contains(refusal_of_words({"training.lr_scheduler_kwargs=3"}), "must be a mapping"));
}

TEST_CASE("use_cpu and no_cuda choose the CPU") {
  CHECK(from_words({"training.use_cpu=True"}, {.cuda = true}).training.device == Device::cpu);
  CHECK(from_words({"training.no_cuda=True"}, {.cuda = true}).training.device == Device::cpu);
}
