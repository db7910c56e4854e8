/*
 * /dev/i2c-N without hardware: preloaded into a process, it answers the system calls on that file, and no others.
 *
 * Eight muxes (0x70-0x77), and on each of their 64 channels an INA260 at 0x40 whose values never change. Everything
 * above the system calls is what runs on a real machine. Each call on the file crosses into the kernel once (getppid),
 * as a real one does; the time on the wire, which a real one then spends asleep, is left out.
 *
 * Source: Linux, Documentation/i2c/dev-interface; include/uapi/linux/i2c.h; TI SBOS656, SCPS207.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define I2C_SLAVE 0x0703
#define I2C_RDWR 0x0707
#define I2C_M_RD 0x0001
#define MUXES 8
#define CHANNELS 8
#define MOST_FILES 4096

struct i2c_msg {
    uint16_t addr, flags, len;
    uint8_t *buf;
};

struct i2c_rdwr_ioctl_data {
    struct i2c_msg *msgs;
    uint32_t nmsgs;
};

struct chip {
    uint8_t pointer;
    uint16_t configuration, alert_limit;
};

static uint8_t open_channels[MUXES];
static struct chip chips[MUXES * CHANNELS];
static uint8_t is_bus[MOST_FILES];
static uint16_t slave_address[MOST_FILES];

/* How many system calls there were on the file; the bench reads it. */
uint64_t i2c_dev_system_calls;

static long enter_kernel(void)
{
    i2c_dev_system_calls++;
    return syscall(SYS_getppid);
}

static int fail(int code)
{
    errno = code;
    return -1;
}

/* The one chip behind the one open channel; none, or two that would answer together, is an error. */
static int connected_chip(void)
{
    int found = -1;
    for (int mux = 0; mux < MUXES; mux++)
        for (int channel = 0; open_channels[mux] && channel < CHANNELS; channel++)
            if (open_channels[mux] >> channel & 1) {
                if (found >= 0)
                    return -1;
                found = mux * CHANNELS + channel;
            }
    return found;
}

static uint16_t word_of(int number)
{
    const struct chip *chip = &chips[number];
    switch (chip->pointer) {
    case 0x00: return chip->configuration ? chip->configuration : 0x6127;
    case 0x01: return 800 + 10 * number; /* 1.25 mA */
    case 0x02: return 4000 + number;     /* 1.25 mV */
    case 0x03: return (uint32_t)(800 + 10 * number) * (4000 + number) / 6400; /* 10 mW */
    case 0x06: return 1 << 3; /* a conversion is always ready */
    case 0x07: return chip->alert_limit;
    case 0xFE: return 0x5449;
    case 0xFF: return 0x2270;
    default: return 0;
    }
}

static int message(uint16_t address, int is_read, uint8_t *data, size_t length)
{
    if (address >= 0x70 && address < 0x70 + MUXES) {
        if (is_read)
            memset(data, open_channels[address - 0x70], length);
        else if (length)
            open_channels[address - 0x70] = data[length - 1];
        return 0;
    }
    int number = connected_chip();
    if (address != 0x40 || number < 0)
        return fail(EREMOTEIO);
    struct chip *chip = &chips[number];
    if (is_read) {
        uint16_t word = word_of(number);
        for (size_t i = 0; i < length; i++)
            data[i] = i == 0 ? word >> 8 : i == 1 ? word & 0xFF : 0xFF;
        return 0;
    }
    if (length)
        chip->pointer = data[0];
    if (length >= 3) {
        uint16_t word = data[1] << 8 | data[2];
        if (chip->pointer == 0x00)
            chip->configuration = word & 0x8000 ? 0 : 0x6000 | (word & 0x0FFF);
        else if (chip->pointer == 0x07)
            chip->alert_limit = word;
    }
    return 0;
}

static int is_bus_file(int file)
{
    return file >= 0 && file < MOST_FILES && is_bus[file];
}

static int open_file(const char *path, int flags, mode_t mode)
{
    int wants_bus = strncmp(path, "/dev/i2c-", 9) == 0;
    const char *stand_in = getenv("BENCH_I2C_STAND_IN");
    if (wants_bus && stand_in == NULL)
        return fail(ENOENT);
    /* A real file stands in, so that locks on it are real. */
    int file = syscall(SYS_openat, AT_FDCWD, wants_bus ? stand_in : path, flags, mode);
    if (wants_bus && file >= 0 && file < MOST_FILES)
        is_bus[file] = 1;
    return file;
}

#define OPEN(name)                                           \
    int name(const char *path, int flags, ...)               \
    {                                                        \
        va_list rest;                                        \
        va_start(rest, flags);                               \
        mode_t mode = va_arg(rest, mode_t);                  \
        va_end(rest);                                        \
        return open_file(path, flags, mode);                 \
    }

OPEN(open)
OPEN(open64)

int close(int file)
{
    if (is_bus_file(file))
        is_bus[file] = 0;
    return syscall(SYS_close, file);
}

ssize_t read(int file, void *data, size_t length)
{
    if (!is_bus_file(file))
        return syscall(SYS_read, file, data, length);
    enter_kernel();
    return message(slave_address[file], 1, data, length) ? -1 : (ssize_t)length;
}

ssize_t write(int file, const void *data, size_t length)
{
    if (!is_bus_file(file))
        return syscall(SYS_write, file, data, length);
    enter_kernel();
    return message(slave_address[file], 0, (uint8_t *)data, length) ? -1 : (ssize_t)length;
}

int ioctl(int file, unsigned long request, ...)
{
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (!is_bus_file(file))
        return syscall(SYS_ioctl, file, request, argument);
    enter_kernel();
    if (request == I2C_SLAVE) {
        slave_address[file] = (uintptr_t)argument;
        return 0;
    }
    if (request != I2C_RDWR)
        return fail(ENOTTY);
    struct i2c_rdwr_ioctl_data *transfer = argument;
    for (uint32_t i = 0; i < transfer->nmsgs; i++) {
        struct i2c_msg *m = &transfer->msgs[i];
        if (message(m->addr, m->flags & I2C_M_RD, m->buf, m->len))
            return -1;
    }
    return transfer->nmsgs;
}
