terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
  # State on a machine's disk is lost with the machine. Give the bucket when you run `terraform init`:
  # docs/guides/deploying.md, step 2.
  backend "s3" {
    key          = "lakehouse/terraform.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region
  default_tags { tags = local.tags }
}

provider "aws" {
  alias  = "recovery"
  region = var.recovery_region
  default_tags { tags = local.tags }
}
