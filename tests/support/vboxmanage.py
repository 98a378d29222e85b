"""What VBoxManage prints, transcribed from the manual of VirtualBox 7.0 (chapter 8) and VBoxManageInfo.cpp."""

INFO = """name="klab-demo_cp1"
groups="/"
ostype="Debian (64-bit)"
UUID="cd0e7372-2c36-5e67-aba5-542d191bfb1c"
hardwareuuid="cd0e7372-2c36-5e67-aba5-542d191bfb1c"
memory=2048
cpus=2
VMState="{state}"
VMStateChangeTime="2026-11-21T02:40:00.000000000"
storagecontrollername0="SATA"
storagecontrollertype0="IntelAhci"
"SATA-0-0"="/home/me/VirtualBox VMs/klab-demo_cp1/box-disk001.vmdk"
"SATA-ImageUUID-0-0"="b2d1f7c0-0000-4000-8000-000000000000"
"SATA-1-0"="/home/me/labs/demo/seeds/cp1.iso"
"SATA-ImageUUID-1-0"="c2d1f7c0-0000-4000-8000-000000000000"
"SATA-IsEjected-1-0"="off"
nic1="nat"
macaddress1="525400D2DADB"
description="first line
klab lab cb7b241c-70ce-456d-a4d8-2e6b37ed0cff seat 0 epoch 1.5"
GuestMemoryBalloon=0
"""
