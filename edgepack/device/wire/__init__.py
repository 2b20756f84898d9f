"""How a device is reached: addresses, SSH, adb, this machine; commands and streams over them."""
