# -*- mode: ruby -*-
# The lab 1m2w, as Vagrant sees it. klab made this file from scenario.yaml beside it
# (template: Vagrantfile.j2) and writes it anew at each `klab create`: change the scenario.
#
#   klab vagrant 1m2w -- status        any Vagrant command, with the surroundings it needs
#   klab ssh 1m2w cp1                  a shell on a node
#   klab destroy 1m2w                  removes everything

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
  config.vm.box_check_update = false
  config.vm.guest = :linux # told, not found out: each question to an emulated machine takes a second
  config.vm.boot_timeout = 600
  config.vm.synced_folder ".", "/vagrant", disabled: true

  # cloud-init gives user `vagrant` this key, and addresses to both network interfaces.
  config.ssh.username = 'vagrant'
  config.ssh.private_key_path = File.expand_path("ssh/id_ed25519", __dir__)
  config.ssh.insert_key = false
  config.vm.allow_fstab_modification = false # no folder is shared: the node's /etc/fstab stays as it is

  config.vm.provider :virtualbox do |virtualbox|
    virtualbox.gui = false
    virtualbox.check_guest_additions = false
    virtualbox.linked_clone = true
    virtualbox.default_nic_type = "virtio"
  end

  config.vm.define 'cp1' do |node|
    node.vm.box = 'klab/debian-13-virtualbox-20g' # its disk has the size that the node's is to have
    node.vm.base_mac = '525400E36C78'
    node.vm.network :private_network,
      ip: '192.168.56.11',
      netmask: '255.255.255.0',
      mac: '52540017B0DF',
      auto_config: false

    node.vm.provider :virtualbox do |virtualbox|
      virtualbox.name = 'klab-1m2w_cp1'
      virtualbox.cpus = 2
      virtualbox.memory = 2048
      virtualbox.customize ["modifyvm", :id, "--description", 'klab lab 00000000-0000-4000-8000-000000000000 seat 0 epoch 1.5']
      virtualbox.customize ["modifyvm", :id, "--hardwareuuid", 'd7a499c4-70a0-5691-9e2a-f0b3471b5407']
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

  config.vm.define 'w1' do |node|
    node.vm.box = 'klab/debian-13-virtualbox-20g' # its disk has the size that the node's is to have
    node.vm.base_mac = '5254005EDCD0'
    node.vm.network :private_network,
      ip: '192.168.56.21',
      netmask: '255.255.255.0',
      mac: '525400000F4E',
      auto_config: false

    node.vm.provider :virtualbox do |virtualbox|
      virtualbox.name = 'klab-1m2w_w1'
      virtualbox.cpus = 2
      virtualbox.memory = 2048
      virtualbox.customize ["modifyvm", :id, "--description", 'klab lab 00000000-0000-4000-8000-000000000000 seat 0 epoch 1.5']
      virtualbox.customize ["modifyvm", :id, "--hardwareuuid", '7511af4b-5092-55e3-8368-be6ecb3acf95']
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
    node.vm.box = 'klab/debian-13-virtualbox-20g' # its disk has the size that the node's is to have
    node.vm.base_mac = '525400F16CDA'
    node.vm.network :private_network,
      ip: '192.168.56.22',
      netmask: '255.255.255.0',
      mac: '525400882FAA',
      auto_config: false

    node.vm.provider :virtualbox do |virtualbox|
      virtualbox.name = 'klab-1m2w_w2'
      virtualbox.cpus = 2
      virtualbox.memory = 2048
      virtualbox.customize ["modifyvm", :id, "--description", 'klab lab 00000000-0000-4000-8000-000000000000 seat 0 epoch 1.5']
      virtualbox.customize ["modifyvm", :id, "--hardwareuuid", '4d0168f0-7d32-5908-9655-7579c726b577']
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
