# -*- mode: ruby -*-
# The lab ha-3m2w, as Vagrant sees it. klab made this file from scenario.yaml beside it
# (template: Vagrantfile.j2) and writes it anew at each `klab create`: change the scenario.
#
#   klab vagrant ha-3m2w -- status     any Vagrant command, with the surroundings it needs
#   klab ssh ha-3m2w cp1               a shell on a node
#   klab destroy ha-3m2w               removes everything

Vagrant.configure("2") do |config|
  config.vm.box = 'klab/debian-13-virtualbox'
  config.vm.box_check_update = false
  config.vm.guest = :linux # told, not found out: each question to an emulated machine takes a second
  config.vm.boot_timeout = 600
  config.vm.synced_folder ".", "/vagrant", disabled: true

  # cloud-init gives user `vagrant` this key, and addresses to both network interfaces.
  config.ssh.username = 'vagrant'
  config.ssh.private_key_path = File.expand_path("ssh/id_ed25519", __dir__)
  config.ssh.insert_key = false

  config.vm.provider :virtualbox do |virtualbox|
    virtualbox.gui = false
    virtualbox.check_guest_additions = false
    virtualbox.linked_clone = true
    virtualbox.default_nic_type = "virtio"
  end

  config.vm.define 'cp1' do |node|
    node.vm.base_mac = '5254004A8984'
    node.vm.disk :disk, size: '20GB', primary: true
    node.vm.network :private_network,
      ip: '192.168.56.11',
      netmask: '255.255.255.0',
      mac: '5254008197A4',
      auto_config: false

    node.vm.provider :virtualbox do |virtualbox|
      virtualbox.name = 'klab-ha-3m2w_cp1'
      virtualbox.cpus = 2
      virtualbox.memory = 2560
      virtualbox.customize ["modifyvm", :id, "--description", 'klab lab 00000000-0000-4000-8000-000000000000 seat 0 epoch 1.5']
      virtualbox.customize ["modifyvm", :id, "--hardwareuuid", '4ed67b69-e997-5cef-8ac5-fb42cacf0c45']
      virtualbox.customize ["modifyvm", :id, "--rtcuseutc", "on"]
      virtualbox.customize ["modifyvm", :id, "--uart1", "0x3F8", "4"]
      virtualbox.customize ["modifyvm", :id, "--uartmode1", "file", File.expand_path('logs/console-cp1.log', __dir__)]

      # The seed is in the machine until its first boot is done; klab removes this file then.
      seed = File.expand_path('seeds/cp1.iso', __dir__)
      if File.exist?(seed)
        virtualbox.customize ["storageattach", :id, "--storagectl", 'SATA', "--port", "1",
                              "--device", "0", "--type", "dvddrive", "--medium", seed]
      end
    end
  end

  config.vm.define 'cp2' do |node|
    node.vm.base_mac = '525400AED82F'
    node.vm.disk :disk, size: '20GB', primary: true
    node.vm.network :private_network,
      ip: '192.168.56.12',
      netmask: '255.255.255.0',
      mac: '525400C6598F',
      auto_config: false

    node.vm.provider :virtualbox do |virtualbox|
      virtualbox.name = 'klab-ha-3m2w_cp2'
      virtualbox.cpus = 2
      virtualbox.memory = 2560
      virtualbox.customize ["modifyvm", :id, "--description", 'klab lab 00000000-0000-4000-8000-000000000000 seat 0 epoch 1.5']
      virtualbox.customize ["modifyvm", :id, "--hardwareuuid", 'f1e3bdbb-4afe-517d-911c-1e75e7ed4172']
      virtualbox.customize ["modifyvm", :id, "--rtcuseutc", "on"]
      virtualbox.customize ["modifyvm", :id, "--uart1", "0x3F8", "4"]
      virtualbox.customize ["modifyvm", :id, "--uartmode1", "file", File.expand_path('logs/console-cp2.log', __dir__)]

      # The seed is in the machine until its first boot is done; klab removes this file then.
      seed = File.expand_path('seeds/cp2.iso', __dir__)
      if File.exist?(seed)
        virtualbox.customize ["storageattach", :id, "--storagectl", 'SATA', "--port", "1",
                              "--device", "0", "--type", "dvddrive", "--medium", seed]
      end
    end
  end

  config.vm.define 'cp3' do |node|
    node.vm.base_mac = '525400B68F5A'
    node.vm.disk :disk, size: '20GB', primary: true
    node.vm.network :private_network,
      ip: '192.168.56.13',
      netmask: '255.255.255.0',
      mac: '525400ADEC37',
      auto_config: false

    node.vm.provider :virtualbox do |virtualbox|
      virtualbox.name = 'klab-ha-3m2w_cp3'
      virtualbox.cpus = 2
      virtualbox.memory = 2560
      virtualbox.customize ["modifyvm", :id, "--description", 'klab lab 00000000-0000-4000-8000-000000000000 seat 0 epoch 1.5']
      virtualbox.customize ["modifyvm", :id, "--hardwareuuid", '8b8975be-142b-5e3c-8213-4a4cec791c07']
      virtualbox.customize ["modifyvm", :id, "--rtcuseutc", "on"]
      virtualbox.customize ["modifyvm", :id, "--uart1", "0x3F8", "4"]
      virtualbox.customize ["modifyvm", :id, "--uartmode1", "file", File.expand_path('logs/console-cp3.log', __dir__)]

      # The seed is in the machine until its first boot is done; klab removes this file then.
      seed = File.expand_path('seeds/cp3.iso', __dir__)
      if File.exist?(seed)
        virtualbox.customize ["storageattach", :id, "--storagectl", 'SATA', "--port", "1",
                              "--device", "0", "--type", "dvddrive", "--medium", seed]
      end
    end
  end

  config.vm.define 'w1' do |node|
    node.vm.base_mac = '525400E0B2D6'
    node.vm.disk :disk, size: '20GB', primary: true
    node.vm.network :private_network,
      ip: '192.168.56.21',
      netmask: '255.255.255.0',
      mac: '5254004CDCA0',
      auto_config: false

    node.vm.provider :virtualbox do |virtualbox|
      virtualbox.name = 'klab-ha-3m2w_w1'
      virtualbox.cpus = 2
      virtualbox.memory = 2560
      virtualbox.customize ["modifyvm", :id, "--description", 'klab lab 00000000-0000-4000-8000-000000000000 seat 0 epoch 1.5']
      virtualbox.customize ["modifyvm", :id, "--hardwareuuid", '971f9a5b-5ae1-5354-87a1-e11b1006a276']
      virtualbox.customize ["modifyvm", :id, "--rtcuseutc", "on"]
      virtualbox.customize ["modifyvm", :id, "--uart1", "0x3F8", "4"]
      virtualbox.customize ["modifyvm", :id, "--uartmode1", "file", File.expand_path('logs/console-w1.log', __dir__)]

      # The seed is in the machine until its first boot is done; klab removes this file then.
      seed = File.expand_path('seeds/w1.iso', __dir__)
      if File.exist?(seed)
        virtualbox.customize ["storageattach", :id, "--storagectl", 'SATA', "--port", "1",
                              "--device", "0", "--type", "dvddrive", "--medium", seed]
      end
    end
  end

  config.vm.define 'w2' do |node|
    node.vm.base_mac = '5254000A4358'
    node.vm.disk :disk, size: '20GB', primary: true
    node.vm.network :private_network,
      ip: '192.168.56.22',
      netmask: '255.255.255.0',
      mac: '525400B6DC54',
      auto_config: false

    node.vm.provider :virtualbox do |virtualbox|
      virtualbox.name = 'klab-ha-3m2w_w2'
      virtualbox.cpus = 2
      virtualbox.memory = 2560
      virtualbox.customize ["modifyvm", :id, "--description", 'klab lab 00000000-0000-4000-8000-000000000000 seat 0 epoch 1.5']
      virtualbox.customize ["modifyvm", :id, "--hardwareuuid", '20cc8fe7-1108-55d0-8d61-c9d0256496de']
      virtualbox.customize ["modifyvm", :id, "--rtcuseutc", "on"]
      virtualbox.customize ["modifyvm", :id, "--uart1", "0x3F8", "4"]
      virtualbox.customize ["modifyvm", :id, "--uartmode1", "file", File.expand_path('logs/console-w2.log', __dir__)]

      # The seed is in the machine until its first boot is done; klab removes this file then.
      seed = File.expand_path('seeds/w2.iso', __dir__)
      if File.exist?(seed)
        virtualbox.customize ["storageattach", :id, "--storagectl", 'SATA', "--port", "1",
                              "--device", "0", "--type", "dvddrive", "--medium", seed]
      end
    end
  end
end
