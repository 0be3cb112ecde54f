# The image for Ray on Kubernetes (configs/clusters), for the head and the workers alike.
FROM python:3.11.14-slim-bookworm

# KubeRay's probes call wget.
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv==0.13.9

WORKDIR /recsys
COPY . .
# For GPUs: --build-arg TORCH_BACKEND=cu130, or another version that the nodes' driver supports.
ARG TORCH_BACKEND=cpu
RUN uv pip install --system --no-cache --torch-backend "$TORCH_BACKEND" -c constraints.txt -e '.[cluster]'
