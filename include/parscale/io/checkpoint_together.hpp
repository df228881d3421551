/// One checkpoint of many processes: each writes its own files into one directory, the first commits them all
/// when everybody is done. Any failure anywhere leaves no checkpoint, and all processes learn of it.
#pragma once

#include <sstream>

#include "checkpoint_save.hpp"
#include "together.hpp"

namespace parscale::io {

/// The files of one process.
class CheckpointPart {
 public:
  explicit CheckpointPart(std::filesystem::path directory) : directory_(std::move(directory)) {}

  /// Writes one file: `write(path)` must leave it closed and synced.
  template <class Write>
  void write(const std::string& name, Write&& write) {
    const auto path = directory_ / name;
    write(path);
    entries_.push_back(entry_of(path));
  }
  const std::vector<ManifestEntry>& entries() const { return entries_; }

 private:
  std::filesystem::path directory_;
  std::vector<ManifestEntry> entries_;
};

namespace detail {

inline std::string text_of(const std::vector<ManifestEntry>& entries) {
  std::string text;
  for (const auto& e : entries)
    text += e.name + " " + std::to_string(e.content.bytes) + " " + std::to_string(e.content.crc32) + "\n";
  return text;
}
inline std::vector<ManifestEntry> entries_of(const std::string& text) {
  std::vector<ManifestEntry> entries;
  std::istringstream in(text);
  for (ManifestEntry e; in >> e.name >> e.content.bytes >> e.content.crc32;) entries.push_back(e);
  return entries;
}

}  // namespace detail

/// Every process calls it: `fill(CheckpointPart&)` writes its files. `request` is the first process's; its
/// bytes are those of all. Without a group, the one process saves alone. Throws StorageError on all when one
/// fails.
template <class Fill>
SavedCheckpoint save_checkpoint(const CheckpointRequest& request, distributed::Group* group, Fill&& fill) {
  if (group == nullptr || group->size() == 1) return save_checkpoint(request, fill);
  std::optional<CheckpointWriter> writer;
  const auto together = [&](auto&& work) { return report_together(*group, request.name.text(), work); };
  const std::filesystem::path directory =
      together([&]() -> std::string {
        if (group->rank() != 0) return {};
        detail::create_durably(request.parent);
        detail::require_room(request);
        return std::filesystem::absolute(writer.emplace(request.parent, request.name).directory()).string();
      }).front();
  const auto entries = together([&] {
    CheckpointPart part(directory);
    fill(part);
    return detail::text_of(part.entries());
  });
  const auto committed = together([&]() -> std::string {
    if (!writer) return {};
    for (const std::string& text : entries)
      for (const ManifestEntry& entry : detail::entries_of(text)) writer->add(entry);
    return writer->commit(request.metadata).string();
  });
  SavedCheckpoint saved{.path = committed.front()};
  if (group->rank() == 0) saved.warning = detail::remove_older(saved.path, request);
  return saved;
}

}  // namespace parscale::io
