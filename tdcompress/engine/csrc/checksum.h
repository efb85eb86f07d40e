/* CRC-32 as zlib has it (ISO 3309, reflected 0xEDB88320), eight bytes at a time (M. Kounavis and F. Berry, "A Systematic Approach to
 * Building High Performance Software-Based CRC Generators", 2005). The tables are made for each file: no state, nothing to lock. */
#ifndef TDC_CHECKSUM_H
#define TDC_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t tables[8][256];
} tdc_crc;

static inline void crc_tables(tdc_crc *crc) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ (value & 1 ? 0xEDB88320u : 0);
        crc->tables[0][i] = value;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++) crc->tables[k][i] = (crc->tables[k - 1][i] >> 8) ^ crc->tables[0][crc->tables[k - 1][i] & 255];
}

/* The checksum of what `value` is the checksum of (0: nothing) and `bytes` more. */
static inline uint32_t crc_more(const tdc_crc *crc, uint32_t value, const unsigned char *data, size_t bytes) {
    value = ~value;
    for (; bytes >= 8; bytes -= 8, data += 8) {
        uint32_t next = 0;
        for (int k = 0; k < 4; k++) next ^= crc->tables[7 - k][((value >> 8 * k) & 255) ^ data[k]] ^ crc->tables[3 - k][data[4 + k]];
        value = next;
    }
    for (; bytes > 0; bytes--, data++) value = (value >> 8) ^ crc->tables[0][(value ^ *data) & 255];
    return ~value;
}

#endif
