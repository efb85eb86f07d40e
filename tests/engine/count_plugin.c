/* A plugin of QEMU's: says on stderr how many instructions the emulated program ran.
 *
 * Debian packages qemu without qemu-plugin.h, so the few functions it takes are declared here, as that header of QEMU 7.2 does
 * (interface 1, of QEMU 4.2 to 8.1). QEMU itself refuses a plugin of an interface that it does not have. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

struct qemu_plugin_tb;
typedef uint64_t qemu_plugin_id;
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id id, void (*called)(qemu_plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*called)(unsigned, void *), int registers, void *data);
void qemu_plugin_register_atexit_cb(qemu_plugin_id id, void (*called)(qemu_plugin_id, void *), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);

int qemu_plugin_version = 1;
static uint64_t instructions; /* the program has one thread */

static void executed(unsigned cpu, void *count) {
    (void)cpu;
    instructions += (uintptr_t)count;
}

static void translated(qemu_plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void ended(qemu_plugin_id id, void *data) {
    (void)id, (void)data;
    fprintf(stderr, "instructions: %" PRIu64 "\n", instructions);
}

int qemu_plugin_install(qemu_plugin_id id, const void *about, int count, char **arguments) {
    (void)about, (void)count, (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
