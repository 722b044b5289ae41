#include "exec/remote_output.h"

#include <algorithm>
#include <array>

#include "mergepipe/base/checked.h"
#include "mergepipe/base/little_endian.h"

namespace mergepipe {
namespace {

constexpr int kOutputTag = 10;
constexpr int kArrivedTag = 11;
constexpr int kAtATime = 4;

// A message: file and offset, little-endian, and the bytes to write; or a mark in place of the
// file, and a record for the journal.
constexpr uint64_t kNoteMark = UINT64_MAX;
constexpr uint64_t kFinishMark = UINT64_MAX - 1;
using Numbers = std::array<uint64_t, 2>;
constexpr size_t kHeadBytes = sizeof(Numbers);

std::string Encode(const Numbers& numbers, std::span<const std::byte> bytes) {
  std::string message;
  message.reserve(kHeadBytes + bytes.size());
  for (const uint64_t number : numbers) AppendLittleEndian(number, message);
  message.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return message;
}

Numbers DecodeHead(const std::string& message) {
  return {LittleEndianAt(message, 0), LittleEndianAt(message, 8)};
}

}  // namespace

Status RemoteOutput::Write(const OutputRun& run) {
  for (uint64_t at = 0; at < run.bytes.size(); at += kPieceBytes) {
    const uint64_t length = std::min<uint64_t>(kPieceBytes, run.bytes.size() - at);
    // Before the copy is made: those who wait hold none.
    if (!WaitForRoom(kHeadBytes + length)) return {};
    Queue(Encode({run.file, run.offset + at}, run.bytes.subspan(at, length)));
  }
  return {};
}

Status RemoteOutput::Copy(const CopyRun&) {
  return Fail(ErrorKind::kInternal, "output", "a copy between files cannot go through rank 0");
}

Status RemoteOutput::Note(std::string record) { return QueueRecord(kNoteMark, record); }
Status RemoteOutput::Finish(std::string record) { return QueueRecord(kFinishMark, record); }

Status RemoteOutput::QueueRecord(uint64_t mark, const std::string& record) {
  if (!WaitForRoom(kHeadBytes + record.size())) return {};
  Queue(Encode({mark, 0}, std::as_bytes(std::span(record))));
  return {};
}

bool RemoteOutput::WaitForRoom(uint64_t bytes) {
  std::unique_lock lock(mutex_);
  room_.wait(lock, [&] {
    return stopped_ || queued_bytes_ == 0 || queued_bytes_ + bytes <= kQueuedBytes;
  });
  queued_bytes_ += bytes;
  return !stopped_;
}

void RemoteOutput::Queue(std::string message) {
  const std::lock_guard lock(mutex_);
  if (!stopped_) queue_.push_back(std::move(message));
}

void RemoteOutput::Service() {
  while (communicator_.TryReceive(Rank(0), kArrivedTag)) --under_way_;
  while (under_way_ < kUnderWay) {
    std::string message;
    {
      const std::lock_guard lock(mutex_);
      if (queue_.empty()) return;
      message = std::move(queue_.front());
      queue_.pop_front();
      queued_bytes_ -= message.size();
    }
    room_.notify_all();
    communicator_.Send(Rank(0), kOutputTag, std::move(message));
    ++under_way_;
  }
}

bool RemoteOutput::AllArrived() const {
  const std::lock_guard lock(mutex_);
  return queue_.empty() && under_way_ == 0;
}

void RemoteOutput::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    queue_.clear();
  }
  room_.notify_all();
}

Status OutputReceiver::Service() {
  // Each acknowledgement lets its sender send on: there is more to do than this.
  for (int taken = 0; taken < kAtATime; ++taken) {
    const auto arrived = communicator_.TryReceiveAny(kOutputTag);
    if (!arrived) break;
    const Status status = failed_ ? Status() : Take(arrived->second);
    communicator_.Send(arrived->first, kArrivedTag, {});
    if (status) continue;
    failed_ = true;
    return status;
  }
  return failed_ ? Status() : output_.CommitIfDue();
}

Status OutputReceiver::Take(const std::string& message) {
  const auto damaged = [] {
    return Fail(ErrorKind::kInternal, "output", "arrived damaged from another rank",
                "check that all ranks run the same build");
  };
  if (message.size() < kHeadBytes) return damaged();
  const auto [file, offset] = DecodeHead(message);
  if (file == kNoteMark) return output_.Note(message.substr(kHeadBytes));
  if (file == kFinishMark) return output_.Finish(message.substr(kHeadBytes));
  const auto to = Narrow<uint32_t>(file);
  if (!to) return damaged();
  return output_.Write({*to, offset, std::as_bytes(std::span(message)).subspan(kHeadBytes)});
}

}  // namespace mergepipe
