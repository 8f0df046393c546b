// The bytes of asynchronous copies, when they arrive.

#include <cstring>

#include "machine.h"

namespace ptx {

void Grid::move_group(Warp& warp, const std::vector<PendingCopy>& group) {
  for (const PendingCopy& copy : group) {
    std::byte bytes[16] = {};
    if (copy.from != nullptr) {
      std::memcpy(bytes, copy.from->bytes.data() + copy.from_offset, copy.from_bytes);
    }
    warp.block().shared().write(copy.to_offset, bytes, copy.bytes);
  }
}

void Grid::deliver_copies(Warp& warp, int lane) {
  for (std::vector<PendingCopy>& group : warp.copies(lane).groups) {
    move_group(warp, group);
    group.clear();
  }
}

void Grid::finish_copies(Warp& warp, int lane, uint32_t left) {
  CopyQueue& queue = warp.copies(lane);
  while (queue.groups.size() > left) {
    move_group(warp, queue.groups.front());
    queue.groups.pop_front();
    ++queue.done;
  }
  if (races_ != nullptr) races_->wait(warp.grid_thread(lane), queue.done);
}

void Grid::finish_all_copies(Warp& warp, int lane) {
  CopyQueue& queue = warp.copies(lane);
  if (queue.open.empty() && queue.groups.empty()) return;
  if (!queue.open.empty()) {
    queue.groups.push_back(std::move(queue.open));
    queue.open.clear();
    ++queue.committed;
    if (races_ != nullptr) races_->commit(warp.grid_thread(lane));
  }
  finish_copies(warp, lane, 0);
}

}  // namespace ptx
