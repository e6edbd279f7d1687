"""An RTMP server that receives one publisher."""
