#pragma once

#include <cstddef>
#include <cstdint>

namespace corral {

// One anonymous private mapping, owned. Reads as zeros; a page takes memory only once it is written.
class VirtualMemory {
 public:
  VirtualMemory() = default;

  // Maps at least `bytes`, without reserving swap for them. Mappings of 2 MiB and more begin at a multiple of 2 MiB,
  // smaller ones at a page. Throws std::bad_alloc if the address space or the limits do not allow it.
  explicit VirtualMemory(size_t bytes);
  ~VirtualMemory();
  VirtualMemory(VirtualMemory&& other) noexcept;
  VirtualMemory& operator=(VirtualMemory&& other) noexcept;
  VirtualMemory(const VirtualMemory&) = delete;
  VirtualMemory& operator=(const VirtualMemory&) = delete;

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }  // bytes, a multiple of the page size

  // Asks the kernel to back the mapping with huge pages, or never to: a huge page is taken whole by its first byte.
  void advise_huge_pages(bool wanted) const;

  // Gives back the whole pages inside [offset, offset + bytes); they read as zeros again.
  void release(size_t offset, size_t bytes) const;

  // Bytes of the mapping that are in memory now.
  size_t resident_bytes() const;

 private:
  void unmap();

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace corral
