# -*- mode: ruby -*-
# The lab ha-3m2w, as Vagrant sees it. klab made this file from scenario.yaml beside it
# (template: Vagrantfile.j2) and writes it anew at each `klab create`: change the scenario.
#
#   klab vagrant ha-3m2w -- status     any Vagrant command, with the surroundings it needs
#   klab ssh ha-3m2w cp1               a shell on a node
#   klab destroy ha-3m2w               removes everything

# A lab is the same for everybody who holds its scenario: what a person's ~/.vagrant.d/Vagrantfile configures is for
# other projects (Vagrant 2.3.4, lib/vagrant/environment.rb and config/loader.rb).
here = __FILE__
Vagrant::Config::Loader.prepend(Module.new do
  define_method(:load) do |order|
    ours = @sources.fetch(:root, []).any? { |_, block| block.source_location.first == here }
    super(ours ? order - [:home] : order)
  end
end)

Vagrant.configure("2") do |config|
  config.vm.box = 'klab/debian-13-k8s-1.35.4-0123456789ab'
  config.vm.box_version = '1.0.0'
  config.vm.box_check_update = false
  config.vm.guest = :linux # told, not found out: each question to an emulated machine takes a second
  config.vm.boot_timeout = 600
  config.vm.synced_folder ".", "/vagrant", disabled: true

  # cloud-init gives user `vagrant` this key, and addresses to both network interfaces.
  config.ssh.username = 'vagrant'
  config.ssh.private_key_path = File.expand_path("ssh/id_ed25519", __dir__)
  config.ssh.insert_key = false

  # Consoles are appended to, so that their files stay their owner's. vagrant-libvirt does so by itself from 0.12 on;
  # one before puts a path into the machine's XML as it is.
  append = Vagrant.has_plugin?("vagrant-libvirt", "< 0.12") ? "' append='on" : ""

  config.vm.provider :libvirt do |libvirt|
    libvirt.uri = "qemu:///system"
    libvirt.driver = 'kvm'
    libvirt.default_prefix = 'klab-ha-3m2w_'
    libvirt.description = 'klab lab 00000000-0000-4000-8000-000000000000 seat 0 epoch 1.5'
    libvirt.storage_pool_name = 'default'
    libvirt.snapshot_pool_name = 'klab-00000000-0000-4000-8000-000000000000'

    # The machine type has a version and the CPU a name: RAM saved today must load tomorrow.
    libvirt.machine_type = 'pc-q35-10.0'
    libvirt.machine_arch = "x86_64"
    libvirt.cpu_mode = 'host-model'
    libvirt.disk_bus = "virtio"
    libvirt.disk_driver cache: 'writeback', discard: "unmap"
    libvirt.nic_model_type = "virtio"
    libvirt.graphics_type = "none"
    libvirt.usb_controller model: "none"
    libvirt.random model: "random"
    libvirt.channel type: "unix", target_type: "virtio", target_name: "org.qemu.guest_agent.0"

    # klab makes and removes both networks; Vagrant uses them as they are.
    libvirt.management_network_name = 'klab-ha-3m2w-mgmt'
    libvirt.management_network_address = '172.29.234.0/24'
    libvirt.management_network_keep = true
  end

  config.vm.define 'cp1' do |node|
    node.vm.network :private_network,
      ip: '192.168.56.11',
      mac: '52:54:00:81:97:a4',
      auto_config: false,
      libvirt__network_name: 'klab-ha-3m2w',
      libvirt__netmask: '255.255.255.0',
      libvirt__dhcp_enabled: false,
      libvirt__forward_mode: "none",
      libvirt__always_destroy: false

    node.vm.provider :libvirt do |libvirt|
      libvirt.title = 'ha-3m2w cp1'
      libvirt.uuid = '4ed67b69-e997-5cef-8ac5-fb42cacf0c45'
      libvirt.cpus = 2
      libvirt.cputopology sockets: 2, cores: 1, threads: 1
      libvirt.memory = 2560
      libvirt.machine_virtual_size = 20
      libvirt.management_network_mac = '52:54:00:4a:89:84'
      libvirt.serial type: "file", source: { path: '/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000/consoles/console-cp1.log' + append }

      # The seed, until the first boot is done: klab then ejects and deletes it. The line stays:
      # with a drive but no line here, `vagrant destroy` fails (vagrant-libvirt 0.11).
      libvirt.storage :file, device: :cdrom, bus: "sata", dev: "sda", path: '/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000/cp1-seed.iso'
    end
  end

  config.vm.define 'cp2' do |node|
    node.vm.network :private_network,
      ip: '192.168.56.12',
      mac: '52:54:00:c6:59:8f',
      auto_config: false,
      libvirt__network_name: 'klab-ha-3m2w',
      libvirt__netmask: '255.255.255.0',
      libvirt__dhcp_enabled: false,
      libvirt__forward_mode: "none",
      libvirt__always_destroy: false

    node.vm.provider :libvirt do |libvirt|
      libvirt.title = 'ha-3m2w cp2'
      libvirt.uuid = 'f1e3bdbb-4afe-517d-911c-1e75e7ed4172'
      libvirt.cpus = 2
      libvirt.cputopology sockets: 2, cores: 1, threads: 1
      libvirt.memory = 2560
      libvirt.machine_virtual_size = 20
      libvirt.management_network_mac = '52:54:00:ae:d8:2f'
      libvirt.serial type: "file", source: { path: '/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000/consoles/console-cp2.log' + append }

      # The seed, until the first boot is done: klab then ejects and deletes it. The line stays:
      # with a drive but no line here, `vagrant destroy` fails (vagrant-libvirt 0.11).
      libvirt.storage :file, device: :cdrom, bus: "sata", dev: "sda", path: '/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000/cp2-seed.iso'
    end
  end

  config.vm.define 'cp3' do |node|
    node.vm.network :private_network,
      ip: '192.168.56.13',
      mac: '52:54:00:ad:ec:37',
      auto_config: false,
      libvirt__network_name: 'klab-ha-3m2w',
      libvirt__netmask: '255.255.255.0',
      libvirt__dhcp_enabled: false,
      libvirt__forward_mode: "none",
      libvirt__always_destroy: false

    node.vm.provider :libvirt do |libvirt|
      libvirt.title = 'ha-3m2w cp3'
      libvirt.uuid = '8b8975be-142b-5e3c-8213-4a4cec791c07'
      libvirt.cpus = 2
      libvirt.cputopology sockets: 2, cores: 1, threads: 1
      libvirt.memory = 2560
      libvirt.machine_virtual_size = 20
      libvirt.management_network_mac = '52:54:00:b6:8f:5a'
      libvirt.serial type: "file", source: { path: '/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000/consoles/console-cp3.log' + append }

      # The seed, until the first boot is done: klab then ejects and deletes it. The line stays:
      # with a drive but no line here, `vagrant destroy` fails (vagrant-libvirt 0.11).
      libvirt.storage :file, device: :cdrom, bus: "sata", dev: "sda", path: '/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000/cp3-seed.iso'
    end
  end

  config.vm.define 'w1' do |node|
    node.vm.network :private_network,
      ip: '192.168.56.21',
      mac: '52:54:00:4c:dc:a0',
      auto_config: false,
      libvirt__network_name: 'klab-ha-3m2w',
      libvirt__netmask: '255.255.255.0',
      libvirt__dhcp_enabled: false,
      libvirt__forward_mode: "none",
      libvirt__always_destroy: false

    node.vm.provider :libvirt do |libvirt|
      libvirt.title = 'ha-3m2w w1'
      libvirt.uuid = '971f9a5b-5ae1-5354-87a1-e11b1006a276'
      libvirt.cpus = 2
      libvirt.cputopology sockets: 2, cores: 1, threads: 1
      libvirt.memory = 2560
      libvirt.machine_virtual_size = 20
      libvirt.management_network_mac = '52:54:00:e0:b2:d6'
      libvirt.serial type: "file", source: { path: '/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000/consoles/console-w1.log' + append }

      # The seed, until the first boot is done: klab then ejects and deletes it. The line stays:
      # with a drive but no line here, `vagrant destroy` fails (vagrant-libvirt 0.11).
      libvirt.storage :file, device: :cdrom, bus: "sata", dev: "sda", path: '/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000/w1-seed.iso'
    end
  end

  config.vm.define 'w2' do |node|
    node.vm.network :private_network,
      ip: '192.168.56.22',
      mac: '52:54:00:b6:dc:54',
      auto_config: false,
      libvirt__network_name: 'klab-ha-3m2w',
      libvirt__netmask: '255.255.255.0',
      libvirt__dhcp_enabled: false,
      libvirt__forward_mode: "none",
      libvirt__always_destroy: false

    node.vm.provider :libvirt do |libvirt|
      libvirt.title = 'ha-3m2w w2'
      libvirt.uuid = '20cc8fe7-1108-55d0-8d61-c9d0256496de'
      libvirt.cpus = 2
      libvirt.cputopology sockets: 2, cores: 1, threads: 1
      libvirt.memory = 2560
      libvirt.machine_virtual_size = 20
      libvirt.management_network_mac = '52:54:00:0a:43:58'
      libvirt.serial type: "file", source: { path: '/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000/consoles/console-w2.log' + append }

      # The seed, until the first boot is done: klab then ejects and deletes it. The line stays:
      # with a drive but no line here, `vagrant destroy` fails (vagrant-libvirt 0.11).
      libvirt.storage :file, device: :cdrom, bus: "sata", dev: "sda", path: '/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000/w2-seed.iso'
    end
  end
end
